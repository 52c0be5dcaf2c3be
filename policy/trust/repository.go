// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

const (
	// target is what Sigstore's repositories call a trusted root.
	target = "trusted_root.json"
	// maxMetadata is how long a file may be, whatever its repository says of its
	// length: the most that go-tuf allows for one without a length
	// (config.UpdaterConfig, TargetsMaxLength).
	maxMetadata = 5_000_000
	// maxRedirects is more than a mirror needs.
	maxRedirects = 3
)

// repository is a repository of The Update Framework, and what is known of it.
//
// The client of sigstore-go is not used: it remembers what it saw in files, or
// not at all, and then takes an older state of the repository for a new one. The
// updater below it tells what it saw, so that this can be remembered in memory.
// A new process knows only the root.json that it was given, and relies on the
// expiry of what it sees.
type repository struct {
	mirror string
	client *http.Client

	mu   sync.Mutex
	root []byte // the newest root.json that was verified
	// seen is what was verified last, nil before that.
	seen *trustedmetadata.TrustedMetadata
}

func newRepository(o Options) (*repository, error) {
	if _, err := trustedmetadata.New(o.Root); err != nil {
		return nil, fmt.Errorf("reading the root.json of the repository of trust roots: %s", detail(err))
	}
	return &repository{
		mirror: o.Mirror,
		root:   o.Root,
		client: &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect},
	}, nil
}

// checkRedirect follows few redirects, and none from https to http: what is
// fetched is signed, but what is asked for is nobody's business.
func checkRedirect(request *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
		return errors.New("a redirect from https to http")
	}
	return nil
}

// fetch brings what is known of the repository up to date, and returns its
// trusted root.
func (r *repository) fetch(ctx context.Context) (*Root, error) {
	r.mu.Lock()
	known := r.root
	r.mu.Unlock()
	update, err := r.updater(ctx, known)
	if err != nil {
		return nil, fmt.Errorf("preparing the update: %s", detail(err))
	}
	failure := update.Refresh()
	now := update.GetTrustedMetadataSet()
	// A root.json that was verified stands, whatever became of the rest.
	if err := r.keepRoot(now.Root); err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, fmt.Errorf("updating: %s", detail(failure))
	}
	if err := r.remember(&now); err != nil {
		return nil, err
	}
	info, err := update.GetTargetInfo(target)
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %s", target, detail(err))
	}
	if info.Length > maxRoot {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are read", target, info.Length, maxRoot)
	}
	_, raw, err := update.DownloadTarget(info, "", "")
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %s", target, detail(err))
	}
	return Parse(raw)
}

// updater makes an updater that begins with a root.json and writes no files. One
// is made for each update: it takes the time, by which it judges what has
// expired, when it is made.
func (r *repository) updater(ctx context.Context, known []byte) (*updater.Updater, error) {
	settings, err := config.New(r.mirror, known)
	if err != nil {
		return nil, err
	}
	settings.DisableLocalCache = true
	// It would look for older metadata all the same, by default in the working
	// directory. Nothing can be in what is no directory.
	settings.LocalMetadataDir = os.DevNull
	settings.LocalTargetsDir = os.DevNull
	settings.Fetcher = fetcher{ctx: ctx, client: r.client}
	return updater.New(settings)
}

// keepRoot keeps a root.json that was verified, for updates to begin with.
func (r *repository) keepRoot(now *metadata.Metadata[metadata.RootType]) error {
	raw, err := now.ToBytes(false)
	if err != nil {
		return fmt.Errorf("keeping root.json: %s", detail(err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.root = raw
	return nil
}

// remember refuses a state of the repository that is older than one that was
// seen (specification of The Update Framework 1.0.31, sections 5.4.3 and 5.5.5),
// and keeps it otherwise.
func (r *repository) remember(now *trustedmetadata.TrustedMetadata) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := rolledBack(r.seen, now); err != nil {
		return err
	}
	r.seen = now
	return nil
}

// rolledBack reports which version of now is lower than before. What is not
// signed by the keys of today does not count: whoever had stolen a key may have
// signed it with a version that nobody can reach (section 5.3.11).
func rolledBack(before, now *trustedmetadata.TrustedMetadata) error {
	if before == nil {
		return nil
	}
	timestampCounts := now.Root.VerifyDelegate(metadata.TIMESTAMP, before.Timestamp) == nil
	if timestampCounts && now.Timestamp.Signed.Version < before.Timestamp.Signed.Version {
		return older(metadata.TIMESTAMP, now.Timestamp.Signed.Version, before.Timestamp.Signed.Version)
	}
	snapshotCounts := now.Root.VerifyDelegate(metadata.SNAPSHOT, before.Snapshot) == nil
	if !snapshotCounts {
		return nil
	}
	if now.Snapshot.Signed.Version < before.Snapshot.Signed.Version {
		return older(metadata.SNAPSHOT, now.Snapshot.Signed.Version, before.Snapshot.Signed.Version)
	}
	for name, file := range before.Snapshot.Signed.Meta {
		if is, ok := now.Snapshot.Signed.Meta[name]; !ok || is.Version < file.Version {
			return fmt.Errorf("the repository was rolled back: its snapshot has an older %s", brief(name))
		}
	}
	return nil
}

func older(name string, is, was int64) error {
	return fmt.Errorf("the repository was rolled back: the version of %s is %d and was %d", name, is, was)
}

// fetcher implements go-tuf's Fetcher, which has no context: it is made for one
// update, and keeps that update's.
type fetcher struct {
	ctx    context.Context
	client *http.Client
}

// DownloadFile gets one file. The time of the update bounds it.
func (f fetcher) DownloadFile(address string, maxLength int64, _ time.Duration) ([]byte, error) {
	maxLength = min(maxLength, maxMetadata)
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "pratique")
	response, err := f.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		// By a 404 the updater knows that there is no newer root.json.
		return nil, &metadata.ErrDownloadHTTP{StatusCode: response.StatusCode, URL: address}
	}
	untrusted, err := io.ReadAll(io.LimitReader(response.Body, maxLength+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", address, withoutURL(err))
	}
	if int64(len(untrusted)) > maxLength {
		return nil, fmt.Errorf("%s has more than %d bytes", address, maxLength)
	}
	return untrusted, nil
}

// withoutURL takes out of an error where a redirect led: that may hold a
// credential that the mirror gave.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
