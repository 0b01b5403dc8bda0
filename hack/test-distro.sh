#!/bin/bash
# Runs the tests that start other programs, such as iptables, nft, firewalld, dockerd, containerd and
# podman, with the programs of newer Debian releases. The environment variable SUITES lists the
# releases. The environment variable TESTS is a pattern that selects some tests.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/containerd.sh
hack/docker.sh moby
packages="./cnitool ./containerd ./dropin ./gocni github.com/bridgeveth/bridgeveth/pkg/setup/..."
for suite in ${SUITES:-trixie sid}; do
	hack/firewalld.sh "$suite"
	# shellcheck disable=SC2016 # the inner shell expands these variables
	hack/distro.sh "$suite" bash -euc '
		for program in iptables nft ip containerd dockerd podman; do "$program" --version 2>/dev/null || "$program" -V; done
		suite=$1
		shift
		export DOCKER_BIN=/usr/sbin CONTAINERD_ROOT=/opt/containerd FIREWALLD_ROOT=/opt/firewalld
		# The tests know containerd 1.7 and firewalld 2 by the name trixie.
		mkdir -p /opt/containerd /opt/firewalld
		ln -s "$PWD/.cache/firewalld/$suite" /opt/firewalld/trixie
		ln -s "$PWD/.cache/containerd/image.tar" /opt/containerd
		case $(containerd --version) in
		*" 1.7."*) ln -s /usr/bin /opt/containerd/trixie ;;
		*) export CONTAINERD2_BIN=/usr/bin ;;
		esac
		hack/test.sh "$@"
	' test "$suite" $packages ${TESTS:+-run "$TESTS"}
done
