package main

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestFlows checks that packets of each kind arrive over the loopback link of a host.
func TestFlows(t *testing.T) {
	setuptest.InHost(t, func() {
		setuptest.Run(t, "ip", "link", "set", "lo", "up")
		here := func(f func() error) error { return f() }
		for _, kind := range traffics {
			f, err := openFlows(kind, 3, "127.0.0.1:80", here, here)
			if err != nil {
				t.Fatalf("%s: %v", kind.name, err)
			}
			rate, err := f.run(packetTime)
			if err != nil || rate == 0 {
				t.Errorf("%s: %.0f packets a second, error %v", kind.name, rate, err)
			}
			f.close()
		}
	})
}
