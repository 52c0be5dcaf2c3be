// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// RetryAfter answers with code, 429 or 503, and the Retry-After header: seconds or a date.
func RetryAfter(code int, value string) Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", value)
		writeError(w, code)
	})
}

// ContentTypes answers as usual but for the media type: the i-th request gets the i-th, round and round.
func ContentTypes(mediaTypes ...string) Behaviour {
	var asked atomic.Int64
	return change(func(w http.ResponseWriter, _ *http.Request, a *answer) {
		if len(mediaTypes) > 0 {
			a.header.Set("Content-Type", mediaTypes[int(asked.Add(1)-1)%len(mediaTypes)])
		}
		a.send(w)
	})
}

// HugeLength promises a body of size bytes, sends the usual one and then nothing more, as Hang does.
func HugeLength(size int64) Behaviour {
	return change(func(w http.ResponseWriter, req *http.Request, a *answer) {
		maps.Copy(w.Header(), a.header)
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes()) // the client may be gone
		_ = http.NewResponseController(w).Flush()
		wait(req, hangLimit, nil)
		panic(http.ErrAbortHandler)
	})
}

// Bomb answers 200 with a gzip-encoded manifest that becomes size bytes when it is unpacked: a thousandth of
// them are sent. It is sent whether the client asks for gzip or not.
func Bomb(size int64) Behaviour {
	// Once: packing takes far longer than sending.
	packed := sync.OnceValue(func() []byte {
		var into bytes.Buffer
		packer := gzip.NewWriter(&into)
		writePadded(packer, size)
		_ = packer.Close() // a buffer takes everything
		return into.Bytes()
	})
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed()) // the client may be gone
	})
}

// SelfLink answers as usual with a Link header that names the same address as the next page.
func SelfLink() Behaviour {
	return change(func(w http.ResponseWriter, req *http.Request, a *answer) {
		a.header.Set("Link", fmt.Sprintf(`<%s>; rel="next"`, req.URL.RequestURI()))
		a.send(w)
	})
}

// Crowd answers 200 with a manifest of n layers, or a list of n referrers, depending on what is asked for.
// Each looks like a signature and has a digest that is nowhere.
func Crowd(n int) Behaviour {
	digests := make([]string, n)
	for i := range digests {
		digests[i] = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(strconv.Itoa(i))))
	}
	return HostileDigests(digests...)
}

// HostileDigests is Crowd with digests of the caller's, which may be any strings.
func HostileDigests(digests ...string) Behaviour {
	return replace(func(w http.ResponseWriter, req *http.Request) {
		mediaType, list := types.OCIManifestSchema1, "layers"
		entry := map[string]any{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "size": 1}
		if _, kind, _ := splitPath(req.URL.Path); kind == "referrers" {
			mediaType, list = types.OCIImageIndex, "manifests"
			entry = map[string]any{"mediaType": types.OCIManifestSchema1, "size": 1, "artifactType": bundlePrefix + ".v0.3+json"}
		}
		entries := make([]map[string]any, 0, len(digests))
		for _, digest := range digests {
			one := maps.Clone(entry)
			one["digest"] = digest
			entries = append(entries, one)
		}
		w.Header().Set("Content-Type", string(mediaType))
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
			"schemaVersion": 2, "mediaType": mediaType, list: entries,
		})
	})
}
