// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	cidrs := func(written ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, w := range written {
			out = append(out, netip.MustParsePrefix(w))
		}
		return out
	}
	tests := map[string]struct {
		guard     guard
		permitted []string
		refused   []string
	}{
		"by default": {
			permitted: []string{
				"8.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "1.0.0.0", "126.255.255.255", "128.0.0.1",
				"169.253.255.255", "169.255.0.0", "223.255.255.255", "100.100.100.199", "100.100.100.201", "168.63.129.15",
				"168.63.129.17", "2001:db8::1", "fd00::1", "fd00:ec2::253", "fec0::1", "fe7f::1", "::ffff:10.0.0.1",
				"64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1",
			},
			refused: []string{
				"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255",
				"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "100.100.100.200", "168.63.129.16",
				"::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "ff02::1", "fd00:ec2::254",
				"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::ffff:100.100.100.200", "::ffff:168.63.129.16",
				"64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::0.0.0.0", "64:ff9b::100.100.100.200",
				"64:ff9b::168.63.129.16", "64:ff9b::224.0.0.1",
				"::127.0.0.1", "::169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
				"192.0.0.192", "fd20:ce::254",
			},
		},
		"allowed": {
			guard:     guard{allow: cidrs("127.0.0.0/8", "::1/128")},
			permitted: []string{"127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "::1", "8.8.8.8"},
			refused:   []string{"169.254.169.254", "::", "0.0.0.0"},
		},
		"denied": {
			guard:     guard{deny: cidrs("10.0.0.0/8", "2001:db8::/32")},
			permitted: []string{"11.0.0.1", "192.168.0.1", "2001:db9::1"},
			refused:   []string{"10.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2001:db8::1", "127.0.0.1"},
		},
		"denied wins over allowed": {
			guard:     guard{allow: cidrs("127.0.0.0/8", "10.0.0.0/8"), deny: cidrs("127.0.0.1/32", "10.0.0.0/7")},
			permitted: []string{"127.0.0.2"},
			refused:   []string{"127.0.0.1", "10.0.0.1", "11.0.0.1", "::ffff:127.0.0.1"},
		},
		"everything allowed": {
			guard:     guard{allow: cidrs("0.0.0.0/0", "::/0")},
			permitted: []string{"127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0"},
		},
		"everything denied": {
			guard:   guard{allow: cidrs("0.0.0.0/0", "::/0"), deny: cidrs("0.0.0.0/0", "::/0")},
			refused: []string{"8.8.8.8", "127.0.0.1", "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"},
		},
		"the translated range itself denied": {
			guard:     guard{deny: cidrs("64:ff9b::/96")},
			permitted: []string{"8.8.8.8"},
			refused:   []string{"64:ff9b::8.8.8.8", "64:ff9b::127.0.0.1"},
		},
		"a mapped range denied": {
			guard:     guard{deny: cidrs("::ffff:10.0.0.0/104")},
			permitted: []string{"8.8.8.8"},
			refused:   []string{"10.0.0.1", "::ffff:10.0.0.1"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for want, addresses := range map[bool][]string{true: test.permitted, false: test.refused} {
				for _, address := range addresses {
					if got := test.guard.permits(t.Context(), netip.MustParseAddr(address)); got != want {
						t.Errorf("permits(%s) = %t, want %t", address, got, want)
					}
				}
			}
		})
	}
}

// What the dialer hands over is an address with a port; anything else is refused.
func TestGuardControl(t *testing.T) {
	for _, address := range []string{"", "example.com:443", "8.8.8.8", "127.0.0.1:443", "[::1]:443", "[::ffff:127.0.0.1]:443", "[fe80::1%lo]:443"} {
		if err := (guard{}).control(t.Context(), "tcp", address, nil); err == nil {
			t.Errorf("control(%q) = nil, want an error", address)
		}
	}
	for _, address := range []string{"8.8.8.8:443", "[2001:db8::1]:443"} {
		if err := (guard{}).control(t.Context(), "tcp", address, nil); err != nil {
			t.Errorf("control(%q) = %v, want nil", address, err)
		}
	}
}
