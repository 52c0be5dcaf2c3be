// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"encoding/hex"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// A Root lists what a trusted_root.json holds; what is nil is left out. A copy
// may be changed: by leaving out a part, or by putting in another's.
//
//	r := s.Root
//	r.Rekor2 = nil
//
// What a part points to is shared by the copies, so a test that wants other
// periods of validity copies that as well.
type Root struct {
	Fulcio    *root.FulcioCertificateAuthority
	Timestamp *root.SigstoreTimestampingAuthority
	// CTLog is the certificate transparency log.
	CTLog          *root.TransparencyLog
	Rekor1, Rekor2 *root.TransparencyLog
}

// NewRoot returns the trusted root of a Sigstore that nobody runs: all of it
// looks like that of a running one, with other keys.
func NewRoot() (Root, error) {
	k, err := newKeys()
	if err != nil {
		return Root{}, err
	}
	return k.root, nil
}

// JSON is the content of the trusted_root.json.
func (r Root) JSON() ([]byte, error) {
	var authorities []root.CertificateAuthority
	if r.Fulcio != nil {
		authorities = append(authorities, r.Fulcio)
	}
	var timestamps []root.TimestampingAuthority
	if r.Timestamp != nil {
		timestamps = append(timestamps, r.Timestamp)
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		authorities, logs(r.CTLog), timestamps, logs(r.Rekor1, r.Rekor2))
	if err != nil {
		return nil, fmt.Errorf("making a trusted root: %w", err)
	}
	content, err := trusted.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding a trusted root: %w", err)
	}
	return content, nil
}

// logs are those that are not nil, by their names.
func logs(all ...*root.TransparencyLog) map[string]*root.TransparencyLog {
	byID := map[string]*root.TransparencyLog{}
	for _, log := range all {
		if log != nil {
			byID[hex.EncodeToString(log.ID)] = log
		}
	}
	return byID
}
