// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// The fixed reviews: CREATE of a Pod whose images have tag and digest, as the
// API server sends them. They are written by reviews_test.go.
var (
	//go:embed testdata/review-1k.json
	review1K []byte
	//go:embed testdata/review-16k.json
	review16K []byte
)

// What stands in the files for what is known only at run time. Each is as long
// as what replaces it, so that a review has the size of its file.
const (
	hostPlaceholder = "127.0.0.1:00000"
	uidPlaceholder  = "a7e3c6d2-5b19-4f08-9c4d-000000000000"
	uidDigits       = 12
)

// repositories are the images of the reviews, in the order of their
// placeholders: the one of the small review, and those of the large one.
var repositories = [...]string{"acme/shop/api", "acme/shop/migrate", "acme/mesh/proxy", "acme/obs/exporter"}

// reviewTag is the tag of all of them.
const reviewTag = "v1.24.3"

// digestPlaceholder stands for the digest of repositories[i].
func digestPlaceholder(i int) string {
	return "sha256:" + strings.Repeat(fmt.Sprintf("%02x", 0xa0+i), 32)
}

// written is an image reference as the files hold it.
func written(i int) string {
	return hostPlaceholder + "/" + repositories[i] + ":" + reviewTag + "@" + digestPlaceholder(i)
}

// review is an AdmissionReview of which every copy gets a uid of its own, so
// that an answer belongs to one request only.
type review struct {
	name string // "1 KB"
	body []byte
	uid  int // where the digits of the uid begin
}

// newReview puts the images into a review of testdata.
func newReview(name string, raw []byte, images []registrytest.Image) (*review, error) {
	body := bytes.Clone(raw)
	for i, image := range images {
		body = bytes.ReplaceAll(body, []byte(written(i)), []byte(image.ByBoth()))
	}
	if len(body) != len(raw) {
		return nil, fmt.Errorf("filling in the review of %s: it has %d bytes instead of %d: the port of the registry must have five digits",
			name, len(body), len(raw))
	}
	if bytes.Contains(body, []byte(hostPlaceholder)) || bytes.Count(body, []byte(uidPlaceholder)) != 1 {
		return nil, fmt.Errorf("filling in the review of %s: its placeholders are not those of reviews.go", name)
	}
	at := bytes.Index(body, []byte(uidPlaceholder)) + len(uidPlaceholder) - uidDigits
	return &review{name: name, body: body, uid: at}, nil
}

// uidOf is the uid of the n-th copy.
func uidOf(n uint64) string {
	return fmt.Sprintf("%s%0*d", uidPlaceholder[:len(uidPlaceholder)-uidDigits], uidDigits, n)
}

// copyTo writes the n-th copy into room, which it grows if it must.
func (r *review) copyTo(room []byte, n uint64) []byte {
	room = append(room[:0], r.body...)
	for i := r.uid + uidDigits - 1; i >= r.uid; i-- {
		room[i] = byte('0' + n%10)
		n /= 10
	}
	return room
}

// podReview is a small review of a Pod with the given images, one container
// each. It is not one of the fixed ones.
func podReview(uid string, images ...string) []byte {
	var containers []string
	for i, image := range images {
		containers = append(containers, fmt.Sprintf(`{"name":"c%d","image":%q}`, i, image))
	}
	return fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":%q,`+
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},`+
		`"namespace":"shop","operation":"CREATE","userInfo":{"username":"admin"},"object":{"apiVersion":"v1","kind":"Pod",`+
		`"metadata":{"name":"cold","namespace":"shop"},"spec":{"containers":[%s]}}}}`, uid, strings.Join(containers, ","))
}
