// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Image is one reference as an object holds it, and where.
type Image struct {
	Written string // exactly as written; "" if it is absent, null or empty
	Skip    Skip

	site  *site
	index [maxLists]int32  // of the element in each list on the way, outermost first
	names [maxLists]string // of those elements; "" where one has none
}

// Skip says why an image is not to be judged.
type Skip string

const (
	// SkipNone says that it is to be judged. A blank one among these is judged too, and is no valid reference: a Pod's
	// image cannot be filled in by anything that comes after.
	SkipNone Skip = ""
	// SkipBlank says that there is no reference, and the kind's row says that one will be filled in or is not used.
	SkipBlank Skip = "blank"
	// SkipPlaceholder says that it holds a placeholder of the kind's own templating.
	SkipPlaceholder Skip = "placeholder"
)

// Path is where the image is, for people: spec.containers[0].image.
func (i Image) Path() string { return i.site.path(i.indexText) }

// Pointer is where the image is, as an RFC 6901 pointer: /spec/containers/0/image.
func (i Image) Pointer() string {
	var out []byte
	for n, part := range i.site.pointers {
		if n > 0 {
			out = append(out, '/')
			out = strconv.AppendInt(out, int64(i.index[n-1]), 10)
		}
		out = append(out, part...)
	}
	return string(out)
}

// Key is where the image is, whatever the order of the lists: spec.containers[app].image. It need not be unique;
// Changed does not compare it but what it is made of.
func (i Image) Key() string {
	return i.site.path(func(n int) string { return i.names[n] })
}

func (i Image) indexText(n int) string { return strconv.Itoa(int(i.index[n])) }

// Found is what the visitor found in one object.
type Found struct {
	// Images in the order of the row's paths, and of the lists; the order of an object's members does not matter.
	Images []Image
	// PullSecrets are the names of secrets, in the same order; empty ones are left out, repeated ones are not.
	PullSecrets []string
	// Listed is how many elements the lists of pull secrets have, nameless ones too.
	Listed int
	// ServiceAccountName is the Pod's, or its template's, or "". The deprecated serviceAccount stands in for it, as
	// it does for the API server. Of several Pod specs in one object the first that has any counts.
	ServiceAccountName string
	// Mirror says that a Pod carries the annotation kubernetes.io/config.mirror. Anyone may set it.
	Mirror bool
}

// maxFound is how many images of one object are looked at. What the API server
// takes, 3 MiB, would hold tens of thousands of containers, each of which has a
// verdict and a line; no real object comes near.
const maxFound = 4096

// mirrorAnnotation marks the API server's copy of a static Pod (k8s.io/api core/v1 MirrorPodAnnotationKey).
const mirrorAnnotation = "kubernetes.io/config.mirror"

// Find returns what the object, raw JSON, holds at the row's paths. It may be called by many goroutines, writes
// nothing to object and keeps nothing of it.
//
// Names are compared in their exact case, as the API server does. Everything that could hide an image is an error,
// and then nothing is returned: malformed JSON, invalid UTF-8, duplicate names (anywhere in the object), anything
// after the object, no object at all, nesting beyond jsontext's 10,000 levels, and, on the way to an image, any value
// of another type than the path says. null counts as absent, save that in a list it is an empty element. An
// element without a reference is found as a blank image; one without a name, or with another's, is found like any
// other. More than 4,096 images are an error too. The time is linear in the size of the object.
func (r *Row) Find(object []byte) (Found, error) {
	rd := r.readers.get(object)
	defer r.readers.put(rd)
	v := visitor{row: r, dec: rd.dec}
	if err := v.whole(); err != nil {
		return Found{}, fmt.Errorf("reading %s: %w", r.Kind, err)
	}
	slices.SortStableFunc(v.images, compareSites)
	slices.SortStableFunc(v.secrets, compareSites)
	if v.overflow {
		return Found{}, fmt.Errorf("reading %s: more than %d images in one object", r.Kind, maxFound)
	}
	found := Found{Images: v.images, Listed: v.listed, Mirror: v.mirror, ServiceAccountName: v.account()}
	for _, s := range v.secrets {
		found.PullSecrets = append(found.PullSecrets, s.Written)
	}
	return found, nil
}

// compareSites orders by path. What stands at one path comes in the order of its lists already.
func compareSites(a, b Image) int { return cmp.Compare(a.site.order, b.site.order) }

// Changed returns the images of object that old does not have: new ones, and those whose reference was changed. Both
// must come from the same row; with an empty old everything is new.
//
// An image is old if old has the same reference in the same list under the same container name, and each image of old
// vouches for one image only. So a container that moves to another list is new, a new order changes nothing, and of two
// containers of one name neither hides the other.
func Changed(object, old Found) []Image {
	if slices.EqualFunc(object.Images, old.Images, func(a, b Image) bool { return a.identity() == b.identity() }) {
		return nil
	}
	left := make(map[identity]int, len(old.Images))
	for _, image := range old.Images {
		left[image.identity()]++
	}
	var changed []Image
	for _, image := range object.Images {
		id := image.identity()
		if left[id] > 0 {
			left[id]--
			continue
		}
		changed = append(changed, image)
	}
	return changed
}

type identity struct {
	site    *site
	names   [maxLists]string
	written string
}

func (i Image) identity() identity { return identity{i.site, i.names, i.Written} }

// readers keeps decoders for reuse: one is about as dear as the reading of a small Pod.
type readers struct{ pool sync.Pool }

type reader struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

func (p *readers) get(object []byte) *reader {
	rd, ok := p.pool.Get().(*reader)
	if !ok {
		rd = &reader{dec: new(jsontext.Decoder)}
	}
	// The decoder reads a bytes.Buffer in place, without copying or writing.
	rd.buf = *bytes.NewBuffer(slices.Clip(object))
	rd.dec.Reset(&rd.buf, jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	return rd
}

// put lets go of the object before the decoder waits in the pool.
func (p *readers) put(rd *reader) {
	rd.buf = bytes.Buffer{}
	rd.dec.Reset(&rd.buf)
	p.pool.Put(rd)
}

// visitor is one walk through one object.
type visitor struct {
	row   *Row
	dec   *jsontext.Decoder
	lists int // entered now
	index [maxLists]int32
	names [maxLists]string // of the elements that are being read, as far as read

	overflow bool // more images than are kept
	images   []Image
	listed   int     // elements of lists of secrets
	secrets  []Image // an Image is a string at a place; so is the name of a secret
	accounts []account
	mirror   bool
}

type account struct {
	order int // of the path; the deprecated field comes after the one that replaces it
	name  string
}

func (v *visitor) account() string {
	if len(v.accounts) == 0 {
		return ""
	}
	return slices.MinFunc(v.accounts, func(a, b account) int { return cmp.Compare(a.order, b.order) }).name
}

// whole reads the object and makes sure that nothing comes after it.
func (v *visitor) whole() error {
	if kind := v.dec.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindInvalid {
		return fmt.Errorf("expected an object, found %s", article(kind))
	}
	if _, err := v.value(v.row.root); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("expected an object, found nothing")
		}
		return err
	}
	if _, err := v.dec.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("expected nothing after the object")
		}
		return err
	}
	return nil
}

// value reads the next value, which stands at n; absent says that it was null.
func (v *visitor) value(n *node) (absent bool, err error) {
	kind := v.dec.PeekKind()
	switch {
	case n.use == useMirror:
		v.mirror = true
		return false, v.skip()
	case kind == jsontext.KindNull:
		return true, v.skip()
	case kind == jsontext.KindInvalid:
		return false, v.skip() // for its error
	case kind != n.wants():
		return false, v.unexpected(n, kind)
	case kind == jsontext.KindBeginObject:
		return false, v.object(n)
	case kind == jsontext.KindBeginArray:
		return false, v.list(n)
	}
	s, err := v.text()
	if err != nil {
		return false, err
	}
	v.keep(n, s)
	return false, nil
}

func (v *visitor) unexpected(n *node, kind jsontext.Kind) error {
	path := n.site.path(func(i int) string { return strconv.Itoa(int(v.index[i])) })
	return fmt.Errorf("%s: expected %s, found %s", path, article(n.wants()), article(kind))
}

// skip reads over a value, and checks its syntax. ReadValue does so faster than SkipValue: the whole object is
// already in memory.
func (v *visitor) skip() error {
	_, err := v.dec.ReadValue()
	return err
}

// text reads a string.
func (v *visitor) text() (string, error) {
	raw, err := v.dec.ReadValue()
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	unquoted, err := jsontext.AppendUnquote(nil, raw)
	return string(unquoted), err
}

func (v *visitor) object(n *node) error {
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	var seen uint64 // bit i: n.members[i] is there, and not null
	for v.dec.PeekKind() == jsontext.KindString {
		at, err := v.member(n)
		if err != nil {
			return err
		}
		if at < 0 {
			if err := v.skip(); err != nil {
				return err
			}
			continue
		}
		absent, err := v.value(n.members[at].node)
		if err != nil {
			return err
		}
		if !absent {
			seen |= 1 << at
		}
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	v.missing(n, seen)
	return nil
}

// member reads a member's name and returns its place in n.members, or -1.
func (v *visitor) member(n *node) (int, error) {
	raw, err := v.dec.ReadValue()
	if err != nil {
		return -1, err
	}
	name := raw[1 : len(raw)-1]
	// A name may be written with escapes: "im\u0061ge" is "image".
	if bytes.IndexByte(name, '\\') >= 0 {
		if name, err = jsontext.AppendUnquote(nil, raw); err != nil {
			return -1, err
		}
	}
	for i := range n.members {
		if n.members[i].name == string(name) {
			return i, nil
		}
	}
	return -1, nil
}

// missing reports a blank image for each reference that an object could hold and does not.
func (v *visitor) missing(n *node, seen uint64) {
	for left := n.required &^ seen; left != 0; left &= left - 1 {
		v.keep(n.members[bits.TrailingZeros64(left)].node, "")
	}
}

func (v *visitor) list(n *node) error {
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	level := v.lists
	v.lists++
	for i := int32(0); ; i++ {
		switch v.dec.PeekKind() {
		case jsontext.KindEndArray:
			v.lists--
			if n.element.ofPullSecrets() {
				v.listed += int(i)
			}
			_, err := v.dec.ReadToken()
			return err
		case jsontext.KindInvalid:
			return v.skip() // for its error
		}
		v.index[level] = i
		if err := v.element(n.element, level); err != nil {
			return err
		}
	}
}

// element reads one element of a list, and gives its name to the images in it: the name may come after them.
func (v *visitor) element(n *node, level int) error {
	first := len(v.images)
	v.names[level] = ""
	absent, err := v.value(n)
	if err != nil {
		return err
	}
	// The API server reads a null element as one whose members are all absent.
	switch {
	case absent && n.wants() == jsontext.KindString:
		v.keep(n, "")
	case absent:
		v.missing(n, 0)
	}
	for i := range v.images[first:] {
		v.images[first+i].names[level] = v.names[level]
	}
	return nil
}

// keep takes note of a string that stands at n.
func (v *visitor) keep(n *node, s string) {
	switch n.use {
	case useImage:
		if v.overflow = len(v.images) == maxFound; v.overflow {
			return
		}
		v.images = append(v.images, Image{Written: s, Skip: v.row.skip(s), site: n.site, index: v.index})
	case usePullSecret:
		if s != "" {
			v.secrets = append(v.secrets, Image{Written: s, site: n.site, index: v.index})
		}
	case useServiceAccount:
		if s != "" {
			v.accounts = append(v.accounts, account{n.site.order, s})
		}
	case useName:
		// A name is a member of the element itself, so the innermost list is the one it names an element of.
		v.names[v.lists-1] = s
	case useNone, useMirror: // not strings
	}
}

// referenceBytes are all that a reference is ever made of (github.com/distribution/reference's grammar, and IPv6
// hosts in brackets).
const referenceBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+[]"

// skip says whether a written reference is to be judged. What could be a reference is never a placeholder, however
// broad the row's expressions are.
func (r *Row) skip(written string) Skip {
	if strings.TrimSpace(written) == "" {
		if r.Blank == BlankSkip {
			return SkipBlank
		}
		return SkipNone
	}
	if len(r.placeholders) == 0 || strings.Trim(written, referenceBytes) == "" {
		return SkipNone
	}
	for _, placeholder := range r.placeholders {
		if placeholder.MatchString(written) {
			return SkipPlaceholder
		}
	}
	return SkipNone
}

// article names a kind of JSON value with its article.
func article(kind jsontext.Kind) string {
	switch kind {
	case jsontext.KindBeginObject:
		return "an object"
	case jsontext.KindBeginArray:
		return "a list"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindTrue, jsontext.KindFalse:
		return "a boolean"
	case jsontext.KindNull:
		return "null"
	default:
		return fmt.Sprintf("%q", kind.String())
	}
}
