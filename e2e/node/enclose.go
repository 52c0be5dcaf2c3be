// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// requiredVariable with the value required makes it a failure that the machine
	// cannot run a node; CI sets it.
	requiredVariable, required = "PRATIQUE_E2E_NODE", "required"
	// packages are what a node needs besides our own binary, by their names in
	// Debian; hack/packages installs them.
	packages = "containerd runc containernetworking-plugins iptables iproute2"
	// bridgeFilter says whether what crosses a bridge is routed as Services are.
	// Without it the answer of a Pod to a Pod on the same bridge is not turned back
	// into that of the Service.
	bridgeFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"
)

// Main runs a program, or a package's tests, where a node can run: in namespaces
// of its own. It returns the exit code. A TestMain is
//
//	func TestMain(m *testing.M) { os.Exit(node.Main(m.Run)) }
//
// The program is started anew with the same arguments, as process 2 of a PID
// namespace, with a network of its own that has loopback and a bridge and leads
// nowhere else, and with its own view of /run, /var/lib and /var/log. Whatever it
// starts, mounts or routes is gone when it ends, however it ends.
//
// Where that cannot be, Main says so on standard error, runs nothing and returns
// 0; or 1 if PRATIQUE_E2E_NODE=required.
func Main(run func() int) int {
	if os.Getenv(stageVariable) == stageInside {
		return run()
	}
	if value := os.Getenv(requiredVariable); value != "" && value != required {
		fmt.Fprintf(os.Stderr, "FAIL: %s=%q: want %q, or nothing\n", requiredVariable, value, required)
		return 1
	}
	if lack := missing(); len(lack) > 0 {
		return leftOut(lack)
	}
	return enclose()
}

// leftOut tells of what did not run.
func leftOut(lack []string) int {
	verdict, code := "LEFT OUT", 0
	if os.Getenv(requiredVariable) == required {
		verdict, code = "FAIL", 1
	}
	fmt.Fprintf(os.Stderr, "*** %s: everything in %s: this machine cannot run a node; it lacks %s.\n"+
		"*** As root on Debian: hack/packages %s\n", verdict, filepath.Base(os.Args[0]), strings.Join(lack, ", "), packages)
	return code
}

// missing lists what a node needs and this machine has not.
func missing() []string {
	var lack []string
	if os.Geteuid() != 0 {
		lack = append(lack, "root's rights")
	}
	for _, program := range []string{
		"containerd", "containerd-shim-runc-v2", "runc", "iptables", "iptables-save", "iptables-restore", "ip", "mount",
	} {
		if _, err := exec.LookPath(program); err != nil {
			lack = append(lack, program)
		}
	}
	if cniDir() == "" {
		lack = append(lack, "CNI plugins")
	}
	if _, err := os.Stat(bridgeFilter); err != nil {
		lack = append(lack, "the kernel's br_netfilter")
	}
	return lack
}

// cniDir is the folder with the network plugins: Debian's, or the one that their
// authors propose. Empty: there is none.
func cniDir() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		all := true
		for _, plugin := range []string{"bridge", "portmap", "host-local", "loopback"} {
			_, err := os.Stat(filepath.Join(dir, plugin))
			all = all && err == nil
		}
		if all {
			return dir
		}
	}
	return ""
}
