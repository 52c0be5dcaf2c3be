// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/pratique-dev/pratique/policy"
)

// Bounds of one OpenPGP message. The library has none: it inflates what is
// compressed without end, which makes gigabytes of the megabyte that was read,
// and verifies every signature packet of a known key, of which a megabyte holds
// thousands.
const (
	maxInflated = 1 << 20 // what is signed has a few hundred bytes
	maxPackets  = 16      // a message by one key has 4
)

// screen reads an OpenPGP message as the library will, packet by packet, and
// stops at the bounds. It judges nothing: what is malformed is left to the
// library, which stops where this does.
func screen(untrusted []byte) error {
	message, named := bytes.CutPrefix(untrusted, []byte(simplePrefix))
	if !named && bytes.HasPrefix(untrusted, []byte{0}) {
		return nil // of another form
	}
	r := &reader{packets: packet.NewReader(bytes.NewReader(message)), left: maxInflated}
	for range maxPackets {
		goesOn := r.next()
		switch {
		case r.left < 0:
			return policy.Undecided(policy.ReasonLimit, "one of its signatures inflates to more than %d bytes", maxInflated).Err()
		case !goesOn:
			return nil
		}
	}
	return policy.Undecided(policy.ReasonLimit, "one of its signatures has more than %d parts", maxPackets-1).Err()
}

// reader reads the packets of a message in the order of openpgp.ReadMessage.
type reader struct {
	packets *packet.Reader
	// body says that the body was read: until then compressed packets are entered,
	// and nothing is afterwards.
	body bool
	// left is what compressed packets may still inflate to; less than 0 says that
	// there was more.
	left int64
}

// next reads one packet, and reports whether another may follow.
func (r *reader) next() bool {
	next, err := r.packets.Next()
	if err != nil || r.body {
		return err == nil
	}
	switch p := next.(type) {
	case *packet.Compressed:
		err = r.packets.Push(&inflating{r, p.Body})
	case *packet.LiteralData:
		r.body = true
		_, err = io.Copy(io.Discard, p.Body)
	}
	return err == nil
}

// inflating counts what a compressed packet inflates to.
type inflating struct {
	reader *reader
	from   io.Reader
}

var errInflated = errors.New("too large")

// Read implements [io.Reader].
func (i *inflating) Read(p []byte) (int, error) {
	n, err := i.from.Read(p)
	if i.reader.left -= int64(n); i.reader.left < 0 {
		return 0, errInflated
	}
	return n, err
}

// signatureEnd is when a signature by one of the keys ends, zero if it does not,
// or is none. The message was screened.
func signatureEnd(untrusted []byte, keyring openpgp.EntityList) time.Time {
	message, err := openpgp.ReadMessage(bytes.NewReader(untrusted), keyring, nil, nil)
	if err != nil || !message.IsSigned || message.SignedBy == nil {
		return time.Time{}
	}
	// The signature is verified while it is read.
	if _, err := io.Copy(io.Discard, message.UnverifiedBody); err != nil || message.SignatureError != nil || message.Signature == nil {
		return time.Time{}
	}
	return endOf(message.Signature)
}
