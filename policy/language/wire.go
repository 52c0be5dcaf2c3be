// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Parent and child speak in frames: a length of four bytes, the most significant
// first, then as many bytes. The child sends a greeting whenever it can take a
// request: two frames, the request as JSON and the document. It answers with one
// frame of JSON, then greets again or ends.

// greeting is the frame that asks for a request.
const greeting = "pratique/evaluate"

const (
	// maxHeader is room for a policy of which JSON escapes each byte in six.
	maxHeader = 6*MaxText + 1<<10
	// maxAnswer is more than an answer with the longest message takes.
	maxAnswer = 16 << 10
)

// request asks for one evaluation.
type request struct {
	Language Language `json:"language"`
	Text     string   `json:"text"`
	// Check says that the text is only to be compiled.
	Check bool `json:"check,omitempty"`
	// Budget is the time in which a child may still answer by itself.
	Budget time.Duration `json:"budget"`

	document []byte
}

// answerKind says what an answer means.
type answerKind string

const (
	answered   answerKind = "answered" // the policy has a result
	uncompiled answerKind = "syntax"   // the text does not compile
	overtime   answerKind = "time"     // the budget is spent
	overlimit  answerKind = "limit"    // another bound was reached
	failed     answerKind = "failed"   // evaluating failed in a way that nobody foresaw
)

// answer is what a child says of a request.
type answer struct {
	Kind      answerKind `json:"kind"`
	Compliant bool       `json:"compliant,omitempty"`
	Message   string     `json:"message,omitempty"`
	Line      int        `json:"line,omitempty"`
	Column    int        `json:"column,omitempty"`
}

func writeFrame(w io.Writer, payload []byte) error {
	//nolint:gosec // no payload has more than MaxDocument
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)), uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// readFrame refuses a frame of more than limit bytes before it reads it.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if uint64(n) > uint64(limit) { //nolint:gosec // limits are constants
		return nil, fmt.Errorf("a frame of %d bytes, where %d are allowed", n, limit)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return payload, err
}

func writeJSON(w io.Writer, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writeFrame(w, payload)
}

func (r *request) write(w io.Writer) error {
	if err := writeJSON(w, r); err != nil {
		return err
	}
	return writeFrame(w, r.document)
}

func readRequest(r io.Reader) (request, error) {
	var q request
	header, err := readFrame(r, maxHeader)
	if err != nil {
		return q, err
	}
	if err := json.Unmarshal(header, &q); err != nil {
		return q, err
	}
	q.document, err = readFrame(r, MaxDocument)
	return q, err
}
