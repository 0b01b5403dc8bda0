package main

import (
	"fmt"
	"testing"
)

// TestServiceRange checks that the service range is the value of the flag. Without the flag, it
// must be the address in KUBERNETES_SERVICE_HOST, which the kubelet sets.
func TestServiceRange(t *testing.T) {
	for _, tt := range []struct {
		host string
		args []string
		want string
	}{
		{"10.96.0.1", nil, "[10.96.0.1/32]"},
		{"fd00:10:96::1", nil, "[fd00:10:96::1/128]"},
		{"", nil, "[]"},
		{"10.96.0.1", []string{"--service-cidr=10.96.0.0/16,fd00:10:96::/112"}, "[10.96.0.0/16 fd00:10:96::/112]"},
	} {
		t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
		o, err := parse(tt.args)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(o.agent.Settings.ServiceCIDRs); got != tt.want {
			t.Errorf("%q %q: %s, want %s", tt.host, tt.args, got, tt.want)
		}
	}
}
