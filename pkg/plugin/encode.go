package plugin

import (
	"encoding/json"
	"net"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// encodeResult returns the JSON of a result of CNI 1.0.0 or later, without empty fields (CNI
// specification 1.1.0, "Add Success"). It does not use encoding/json, which would first examine
// each type. That takes a quarter of a millisecond, more than ADD needs to set the container's
// addresses and routes.
func encodeResult(r *current.Result) []byte {
	var e encoder
	e.object("", func() {
		e.text("cniVersion", r.CNIVersion)
		objects(&e, "interfaces", r.Interfaces, e.iface)
		objects(&e, "ips", r.IPs, e.ip)
		objects(&e, "routes", r.Routes, e.route)
		if !r.DNS.IsEmpty() {
			e.object("dns", func() {
				list(&e, "nameservers", r.DNS.Nameservers, e.string)
				e.text("domain", r.DNS.Domain)
				list(&e, "search", r.DNS.Search, e.string)
				list(&e, "options", r.DNS.Options, e.string)
			})
		}
	})
	return append(e, '\n')
}

func (e *encoder) iface(i *current.Interface) {
	e.key("name")
	e.string(i.Name)
	e.text("mac", i.Mac)
	e.number("mtu", i.Mtu)
	e.text("sandbox", i.Sandbox)
	e.text("socketPath", i.SocketPath)
	e.text("pciID", i.PciID)
}

func (e *encoder) ip(c *current.IPConfig) {
	e.pointer("interface", c.Interface)
	e.text("address", c.Address.String())
	e.address("gateway", c.Gateway)
}

func (e *encoder) route(r *types.Route) {
	e.text("dst", r.Dst.String())
	e.address("gw", r.GW)
	e.number("mtu", r.MTU)
	e.number("advmss", r.AdvMSS)
	e.number("priority", r.Priority)
	e.pointer("table", r.Table)
	e.pointer("scope", r.Scope)
}

// encoder is the JSON text that has been written so far. Its methods skip keys with empty values.
type encoder []byte

// next writes the comma before a value, unless the value is the first in its object or list.
func (e *encoder) next() {
	if n := len(*e); n > 0 && (*e)[n-1] != '{' && (*e)[n-1] != '[' && (*e)[n-1] != ':' {
		*e = append(*e, ',')
	}
}

// key writes the key before a value. If name is "", the value has no key.
func (e *encoder) key(name string) {
	e.next()
	if name != "" {
		*e = append(append(append(*e, '"'), name...), '"', ':')
	}
}

func (e *encoder) object(key string, members func()) {
	e.key(key)
	*e = append(*e, '{')
	members()
	*e = append(*e, '}')
}

func list[T any](e *encoder, key string, all []T, each func(T)) {
	if len(all) == 0 {
		return
	}
	e.key(key)
	*e = append(*e, '[')
	for _, one := range all {
		each(one)
	}
	*e = append(*e, ']')
}

// objects writes a list of objects. For a nil object it writes null. The result of another plugin
// may contain null.
func objects[T any](e *encoder, key string, all []*T, members func(*T)) {
	list(e, key, all, func(one *T) {
		if one == nil {
			e.next()
			*e = append(*e, "null"...)
			return
		}
		e.object("", func() { members(one) })
	})
}

// string writes a string value. If the value has a key, the caller must have written the key.
func (e *encoder) string(value string) {
	e.next()
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(value) // cannot fail for a string
			*e = append(*e, quoted...)
			return
		}
	}
	*e = append(append(append(*e, '"'), value...), '"')
}

func (e *encoder) text(key, value string) {
	if value != "" {
		e.key(key)
		e.string(value)
	}
}

func (e *encoder) address(key string, ip net.IP) {
	if len(ip) > 0 {
		e.text(key, ip.String())
	}
}

func (e *encoder) number(key string, value int) {
	if value != 0 {
		e.pointer(key, &value)
	}
}

// pointer writes a key and a number, even if the number is 0. It writes nothing if value is nil.
func (e *encoder) pointer(key string, value *int) {
	if value != nil {
		e.key(key)
		*e = strconv.AppendInt(*e, int64(*value), 10)
	}
}
