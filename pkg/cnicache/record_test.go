package cnicache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// TestRead checks that Read returns the records of one network, and skips damaged records. Records
// of libcni before 1.2 have no key netns, and Read must return them too.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	if records, damaged, err := Read(dir, ""); records != nil || damaged != nil || err != nil {
		t.Errorf("no folder: got %v, %v, %v", records, damaged, err)
	}
	results := filepath.Join(dir, "results")
	if err := os.Mkdir(results, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"net-c1-eth0": `{"containerId":"c1","ifName":"eth0","networkName":"net","netns":"/run/netns/c1",
			"cniArgs":[["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web\n1"]],
			"result":{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.2/16"}]}}`,
		"net-c2-eth0": `{"containerId":"c2","ifName":"eth0","networkName":"net",
			"result":{"cniVersion":"1.0.0","interfaces":[{"name":"eth1","sandbox":"/x"},{"name":"eth0","sandbox":"/run/netns/c2"}],"ips":[{"address":"10.1.0.3/16"}]}}`,
		"net-a-c3-eth0": `{"containerId":"c3","ifName":"eth0","networkName":"net-a","result":{"ip4":{"ip":"10.1.0.4/16"}}}`,
		"net-c4-eth0":   `{"containerId":`,
		"net-c5-eth0":   `null`,
		"net-c6-eth0":   `{"kind":"cniCacheV2","containerId":"c6","ifName":"eth0","networkName":"net"}`,
	} {
		if err := os.WriteFile(filepath.Join(results, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records, damaged, err := Read(dir, "net")
	if err != nil || len(records) != 2 || len(damaged) != 3 {
		t.Fatalf("got %v, %v, %v", records, damaged, err)
	}
	for i, want := range []struct{ namespace, text, address string }{
		{"/run/netns/c1", "network net, container c1, pod default/web\uFFFD1", "10.1.0.2/16"},
		{"/run/netns/c2", "network net, container c2", "10.1.0.3/16"},
	} {
		r := records[i]
		if r.Namespace != want.namespace || r.String() != want.text || r.Written.IsZero() {
			t.Errorf("got %q, %q, written %s, want %+v", r.Namespace, r, r.Written, want)
		}
		if result, err := r.ParseResult(); err != nil || len(result.IPs) != 1 || result.IPs[0].Address.String() != want.address {
			t.Errorf("%s: got %v, %v, want %s", r, result, err, want.address)
		}
	}
	if records, _, err = Read(dir, ""); err != nil || len(records) != 3 {
		t.Fatalf("all networks: got %v, %v", records, err)
	}
	for _, r := range records {
		if result, err := r.ParseResult(); err != nil || len(result.IPs) != 1 {
			t.Errorf("%s: got %v, %v", r, result, err)
		}
	}
}

// TestReadShared checks that no records are read through a symbolic link in a folder where all users
// can write, because such records may be forged.
func TestReadShared(t *testing.T) {
	shared := filepath.Join(t.TempDir(), "shared")
	forged := filepath.Join(t.TempDir(), "results")
	for _, err := range []error{
		os.Mkdir(forged, 0o755), os.WriteFile(filepath.Join(forged, "net-c-eth0"), []byte(`{"containerId": "c", "ifName": "eth0", "networkName": "net"}`), 0o600),
		os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777), os.Symlink(forged, filepath.Join(shared, "results")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if records, _, err := Read(shared, "net"); !errors.Is(err, files.ErrShared) {
		t.Errorf("got %v, %v, want ErrShared", records, err)
	}
}

// FuzzRecord reads any text as a record of libcni. It checks that Read returns either the record, or
// an error that names the file.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{"containerId": "c", "ifName": "eth0", "networkName": "net", "netns": "/x", "cniArgs": [["K8S_POD_NAME", "p"], ["K8S_POD_NAMESPACE", "n\n"]], "result": {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.2/16"}]}}`,
		`{"containerId": "c", "ifName": "eth0", "networkName": "net", "config": "e30=", "capabilityArgs": {"mac": 7}, "result": {"interfaces": [{"name": "eth0", "sandbox": "/x"}, null]}}`,
		`{"containerId": "c", "ifName": "eth0", "networkName": "net", "result": {"cniVersion": "0.2.0", "ip4": null}}`, `null`, `{`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "results", "net-c-eth0")
		if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600)); err != nil {
			t.Fatal(err)
		}
		records, damaged, err := Read(dir, "")
		if err != nil || len(records)+len(damaged) != 1 {
			t.Fatalf("%d records, %d errors: %v", len(records), len(damaged), err)
		}
		for _, err := range damaged {
			if !strings.HasPrefix(err.Error(), file) {
				t.Error(err)
			}
		}
		for _, r := range records {
			if strings.ContainsAny(r.Pod(), "\n\t") {
				t.Errorf("pod %q", r.Pod())
			}
			if result, err := r.ParseResult(); (result == nil) == (err == nil) {
				t.Errorf("%v, %v", result, err)
			}
		}
	})
}
