// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package keyservice

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	vault "github.com/hashicorp/vault/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What people are told. The providers' own errors hold what services answered,
// and may hold what they were asked with: they are never repeated, but for codes
// and addresses.
var (
	errRefused = errors.New("the key service does not let Pratique read the key")
	errMissing = errors.New("the key service knows no such key")
	errFailed  = errors.New("the key service could not be asked")
)

// hints are what providers say before they ask, and what that means. Services
// may say so too, which only leads to one of these.
var hints = []struct{ part, meaning string }{
	{"VAULT_ADDR", "the address of the key service is not set: VAULT_ADDR"},
	{"Vault token", "there is no token for the key service: VAULT_TOKEN"},
	{".vault-token", "there is no token for the key service: VAULT_TOKEN"},
	{"transit key path", errMissing.Error()},
	{"Missing Region", "the region of the key service is not set: AWS_REGION"},
	{"redential", "Pratique has no credentials for the key service"},
}

// explained is why a key could not be fetched, in words of our own.
func explained(err error) error {
	if err := answered(err); err != nil {
		return err
	}
	var unresolved *net.DNSError
	var unreached *net.OpError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: its certificate is not trusted", errFailed)
	case errors.As(err, &unresolved):
		return fmt.Errorf("%w: its host cannot be resolved", errFailed)
	}
	for _, hint := range hints {
		if strings.Contains(err.Error(), hint.part) {
			return errors.New(hint.meaning)
		}
	}
	if errors.As(err, &unreached) && unreached.Addr != nil {
		return fmt.Errorf("%w: it cannot be reached at %s", errFailed, unreached.Addr)
	}
	return errFailed
}

// answered is what a service's answer means, nil if there was none.
func answered(err error) error {
	var ofVault *vault.ResponseError
	var ofAzure *azcore.ResponseError
	// Errors of AWS's SDK (smithy.APIError).
	var ofAWS interface {
		error
		ErrorCode() string
	}
	switch {
	case errors.As(err, &ofVault):
		return ofStatus(ofVault.StatusCode)
	case errors.As(err, &ofAzure):
		return ofStatus(ofAzure.StatusCode)
	case errors.As(err, &ofAWS):
		return ofCode(ofAWS.ErrorCode())
	}
	// Errors of Google's SDK.
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unavailable {
		return ofCode(s.Code().String())
	}
	return nil
}

func ofStatus(code int) error {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w (%d)", errRefused, code)
	case http.StatusNotFound:
		return errMissing
	default:
		return fmt.Errorf("%w: it answered %d", errFailed, code)
	}
}

// word is what services have for codes.
var word = regexp.MustCompile(`^[A-Za-z]{1,64}$`)

func ofCode(untrustedCode string) error {
	if !word.MatchString(untrustedCode) {
		return errFailed
	}
	switch {
	case strings.Contains(untrustedCode, "Denied"), strings.Contains(untrustedCode, "Unauth"):
		return fmt.Errorf("%w (%s)", errRefused, untrustedCode)
	case strings.HasPrefix(untrustedCode, "NotFound"):
		return errMissing
	default:
		return fmt.Errorf("%w: it answered %s", errFailed, untrustedCode)
	}
}
