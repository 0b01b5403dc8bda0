package etcdtest

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { Main(m) }

// TestCluster kills the member that leads, and then all members. The cluster must keep what was written.
func TestCluster(t *testing.T) {
	EachProgram(t, func(t *testing.T, program string, port int) {
		c := StartCluster(t, Options{Program: program, Port: port, Members: 3, TLS: true})
		c.AddRole("hosts")
		c.Allow("hosts", "/bridgeveth/")
		c.AddUser("host", "secret", "hosts")
		client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, Username: "host", Password: "secret", TLS: c.Authority.client("admin"), Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Put(Deadline(t), "/else", ""); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("a key that is not allowed: %v", err)
		}
		leader := c.Leader()
		c.Kill(leader)
		if _, err := c.Client().Put(Deadline(t), "/bridgeveth/key", ""); err != nil {
			t.Fatal(err)
		}
		if got := c.Leader(); got == leader {
			t.Errorf("member %d leads, and it is down", got)
		}
		c.Start(leader)
		for i := range c.Endpoints {
			c.Kill(i)
		}
		for i := range c.Endpoints {
			c.Start(i)
		}
		c.Client()
		if answer, err := client.Get(Deadline(t), "/bridgeveth/key"); err != nil || answer.Count != 1 {
			t.Errorf("after all members were down: %v, %v", answer, err)
		}
	})
}
