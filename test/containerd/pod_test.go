package containerd

import (
	"encoding/json"
	"fmt"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// pod is a running pod.
type pod struct {
	id, address string
	netns       string // path of the pod's network namespace
	config      *cri.PodSandboxConfig
}

// podConfig returns the configuration that the kubelet sends to containerd for a pod. The number i
// distinguishes the pods of a test.
func (n *node) podConfig(i int) *cri.PodSandboxConfig {
	name := fmt.Sprint("web-", i)
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: fmt.Sprint("0f3a-", i)},
		Hostname:     name,
		LogDirectory: "/run/log",
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: "/" + n.cgroup},
	}
}

// published returns the configuration of podConfig with a host port for the pod's web server.
func (n *node) published(i int) *cri.PodSandboxConfig {
	config := n.podConfig(i)
	config.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: 8080}}
	return config
}

// run starts a pod, and reads the pod's status from containerd.
func (n *node) run(config *cri.PodSandboxConfig) (*pod, error) {
	got, err := n.runtime.RunPodSandbox(n.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, err
	}
	s, err := n.runtime.PodSandboxStatus(n.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: got.PodSandboxId, Verbose: true})
	if err != nil {
		return nil, err
	}
	var info struct {
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.Info["info"]), &info); err != nil {
		return nil, err
	}
	p := &pod{id: got.PodSandboxId, address: s.Status.Network.Ip, config: config}
	for _, ns := range info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			p.netns = ns.Path
		}
	}
	return p, nil
}

// mustRun starts a pod as run does, and fails the test if run returns an error.
func (n *node) mustRun(config *cri.PodSandboxConfig) *pod {
	n.Helper()
	p, err := n.run(config)
	if err != nil {
		n.Fatal(err)
	}
	return p
}

// remove stops and removes a pod, as the kubelet does.
func (n *node) remove(p *pod) error {
	if _, err := n.runtime.StopPodSandbox(n.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return err
	}
	_, err := n.runtime.RemovePodSandbox(n.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	return err
}

// container starts the only container of a pod. Without a command, the container runs the image's
// default command, which sleeps.
func (n *node) container(p *pod, command ...string) (id string) {
	n.Helper()
	got, err := n.runtime.CreateContainer(n.Context(), &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "only"},
			Image:    &cri.ImageSpec{Image: image},
			Command:  command,
			Linux:    &cri.LinuxContainerConfig{},
		},
	})
	if err != nil {
		n.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(n.Context(), &cri.StartContainerRequest{ContainerId: got.ContainerId}); err != nil {
		n.Fatal(err)
	}
	return got.ContainerId
}

// exec runs a command in a container. The error contains the command's output.
func (n *node) exec(container string, command ...string) error {
	n.Helper()
	got, err := n.runtime.ExecSync(n.Context(), &cri.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 30})
	if err != nil {
		n.Fatal(err)
	}
	if got.ExitCode != 0 {
		return fmt.Errorf("%s: status %d: %s%s", command, got.ExitCode, got.Stdout, got.Stderr)
	}
	return nil
}

// ping sends an echo request from a container. It waits two seconds for the answer, because the
// host may have to repeat an ARP request first.
func (n *node) ping(container, address string) error {
	n.Helper()
	return n.exec(container, "ping", "-c", "1", "-W", "2", address)
}

// inside opens a pod's network namespace.
func (n *node) inside(p *pod) *setup.Namespace {
	n.Helper()
	ns, err := setup.OpenNamespace(p.netns)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(ns.Close)
	return ns
}
