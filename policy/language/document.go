// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// checkDocument refuses what the languages would read differently, or not as
// data: what is not JSON (CUE would compile it), names that an object has twice
// (CUE unites their values, Rego takes the last), text that is not UTF-8, and
// numbers beyond what a double holds (CUE drops an exponent of ten digits, and
// Rego writes the number out).
func checkDocument(untrusted []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(untrusted))
	for {
		token, err := decoder.ReadToken()
		if err != nil {
			return fmt.Errorf("the document is not good JSON: %w", err)
		}
		if token.Kind() == jsontext.KindNumber {
			if err := checkNumber(token.String()); err != nil {
				return err
			}
		}
		if decoder.StackDepth() == 0 {
			break
		}
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("the document is not good JSON: something follows it")
	}
	return nil
}

func checkNumber(text string) error {
	number, err := strconv.ParseFloat(text, 64)
	mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
	if err != nil || number == 0 && strings.ContainsAny(mantissa, "123456789") {
		return errors.New("the document holds a number that is too large or too small")
	}
	return nil
}

// decode reads a document that was checked; numbers stay as they are written.
func decode(document []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("decoding the document: %w", err)
	}
	return value, nil
}
