package hostports

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
)

// FuzzMappings reads an element with any key and value as a host port, for each map. Another program may have
// added the element.
func FuzzMappings(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 0, 80, 0, 0}, []byte{10, 1, 0, 2, 0, 80, 0, 0})
	f.Add(make([]byte, 40), make([]byte, 20))
	f.Fuzz(func(_ *testing.T, key, value []byte) {
		for _, set := range []string{AnyAddress, OneAddress, portsWaiting} {
			for _, m := range readMappings([]elements.Element{{Family: unix.AF_INET, Set: set, Key: key, Value: value}}) {
				_ = m.serving().port.String()
			}
		}
	})
}
