package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// Keys of sysctls, below /proc/sys/net. Each network namespace has its own values. The sysctls of
// br_netfilter are per namespace from Linux 5.3 on.
const (
	SysctlForward4 = "ipv4/ip_forward"
	SysctlForward6 = "ipv6/conf/all/forwarding"
	SysctlBridge4  = "bridge/bridge-nf-call-iptables"
	SysctlBridge6  = "bridge/bridge-nf-call-ip6tables"
)

// Sysctl returns the value of a sysctl in the namespace. key is the path of the sysctl below
// /proc/sys/net. The error wraps os.ErrNotExist if the kernel does not have the sysctl, for
// instance because IPv6 is off or br_netfilter is not loaded.
func (n *Namespace) Sysctl(key string) (value string, err error) {
	err = n.Do(func() error {
		b, err := files.Read("/proc/sys/net/" + key)
		value = strings.Join(strings.Fields(string(b)), " ") // some values are lists, with tabs as separators
		return err
	})
	return value, err
}

// Sysctls returns the present value of each sysctl whose path is a key of the map. It ignores the
// values in the map.
func (n *Namespace) Sysctls(keys map[string]string) (values map[string]string, err error) {
	values = map[string]string{}
	for key := range keys {
		if values[key], err = n.Sysctl(key); err != nil {
			return nil, fmt.Errorf("read sysctl net/%s: %w", key, err)
		}
	}
	return values, nil
}

// SetSysctl sets the sysctl with this key. A read-only /proc/sys is an error only if the sysctl has
// another value.
func (n *Namespace) SetSysctl(key, value string) error {
	return n.Do(func() error { return WriteSysctl(key, value) })
}

// SetSysctlIfAny sets a sysctl as SetSysctl does. A kernel without the sysctl is no error.
func (n *Namespace) SetSysctlIfAny(key, value string) error {
	return n.Do(func() error { return WriteSysctlIfAny(key, value) })
}

// WriteSysctl sets a sysctl as SetSysctl does, but in the namespace of the calling thread.
func WriteSysctl(key, value string) error {
	path := "/proc/sys/net/" + key
	err := files.Write(path, value)
	if err == nil {
		return nil
	}
	if now, readErr := files.Read(path); readErr == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("set sysctl net/%s to %s: %w; let the program that mounts /proc/sys set the sysctl, or mount /proc/sys writable", key, value, err)
	}
	return fmt.Errorf("set sysctl net/%s to %s: %w", key, value, err)
}

// ReadOnlySysctl reports whether a sysctl cannot be set because /proc/sys is read-only. This is
// usual in a container within a container.
func (n *Namespace) ReadOnlySysctl(key string) bool {
	err := n.Do(func() error { return unix.Access("/proc/sys/net/"+key, unix.W_OK) })
	return errors.Is(err, unix.EROFS)
}

// WriteSysctlIfAny sets a sysctl as SetSysctlIfAny does, but in the namespace of the calling
// thread.
func WriteSysctlIfAny(key, value string) error {
	if err := WriteSysctl(key, value); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// HasIPv6 reports whether IPv6 is on in the kernel. The kernel parameter ipv6.disable=1 switches
// IPv6 off. If the sysctl cannot be read, HasIPv6 returns true, so that the first step that needs
// IPv6 reports the error.
func (n *Namespace) HasIPv6() bool {
	_, err := n.Sysctl(SysctlForward6)
	return !errors.Is(err, os.ErrNotExist)
}
