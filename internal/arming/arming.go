// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package arming has the API server ask the webhook, once there is somebody who
// answers, and for as long as nobody switches it off.
//
// The webhook configurations are in no chart: the elected replica writes them,
// and writes them again whenever they differ from what they should be. A webhook
// is put in force, and leads somewhere else than before, only after a replica has
// answered there, over TLS and by the very authorities that it will name. From
// then on it stays in force, whoever is alive: what is away is not let through.
//
// The authorities are Pratique's to write, and then nothing is made before that
// answer. Or they are somebody else's, who can write them only into what is there:
// then a webhook that is new is made at once, asleep, and wakes by that answer.
// What is awake keeps its authorities, and stays awake whatever becomes of another.
package arming

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Marker is the name of the ConfigMap, in Pratique's own namespace, that keeps
// both configurations away for as long as it is there.
const Marker = "pratique-disarmed"

const (
	// owner is the field manager of what is written here.
	owner = "pratique"
	// lookAgain is how often is asked whether this replica leads by now.
	lookAgain = 250 * time.Millisecond
	// repairEvery is when everything is read again, for a change that the watch
	// did not tell of.
	repairEvery = 30 * time.Second
	// retryAfter is when is tried again what failed: soon, for a new installation
	// is waiting for its first answer, and people for that.
	retryAfter = time.Second
	// passFor bounds one pass, with a slow API server.
	passFor = 20 * time.Second
)

// Options are what an Armer works with. Owner, Injected and Changed may be left
// out, and Bundle with Injected.
type Options struct {
	// Client reads and writes. It must not read from a cache: a configuration that
	// was read late would be answered with what is no more.
	Client client.Client
	// Name is that of both configurations, Namespace is Pratique's own.
	Name, Namespace string
	// Owner is the ClusterRole whose end is theirs, too; "" for none.
	Owner string
	// Wanted are the configurations that should be there. spare says that the API
	// server may keep to itself what changes no image.
	Wanted func(caBundle []byte, spare bool) (
		*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error)
	// Bundle are the authorities by which the API server is to believe the
	// webhook, in PEM form; empty means those of its system. It is read from where
	// it is stored, each time.
	Bundle func(ctx context.Context) ([]byte, error)
	// Injected says that somebody else writes the authorities into the
	// configurations, as cert-manager's cainjector does. Bundle is not asked then.
	Injected bool
	// Spare reports whether the rules allow to spare calls, and whether they are
	// known yet.
	Spare func() (spare, known bool)
	// Answers reports why no replica answers where the configurations lead, to
	// somebody who goes by these authorities.
	Answers func(ctx context.Context, caBundle []byte) error
	// Leads reports whether this replica is the one that writes now.
	Leads func() bool
	// Changed tells that one of the configurations, the marker or the authorities
	// did.
	Changed <-chan struct{}
	// Report is told whether the API server is made to ask, once that is known;
	// leads is false if it is another replica that knows.
	Report func(leads, armed bool)
}

// Armer keeps the configurations.
type Armer struct {
	o       Options
	led     bool      // when it was last looked
	spared  bool      // what the last pass was to make, whether or not it could
	due     time.Time // of the next pass
	told    string    // what the log was told last, to tell it once
	carried carried
}

// New makes an Armer, which [Armer.Run] sets to work.
func New(o Options) *Armer { return &Armer{o: o} }

// Carried is since when both configurations have carried an authority, as long
// as this replica leads; zero if they do not, or if that is not known.
func (a *Armer) Carried(c *x509.Certificate) time.Time {
	if !a.o.Leads() {
		return time.Time{}
	}
	return a.carried.since(c)
}

// Run keeps the configurations until ctx ends. It writes only while this replica
// leads.
func (a *Armer) Run(ctx context.Context) error {
	looking := time.NewTicker(lookAgain)
	defer looking.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.o.Changed:
			a.due = time.Time{}
		case <-looking.C:
		}
		a.turn(ctx)
	}
}

// turn makes a pass if one is due and this replica leads.
func (a *Armer) turn(ctx context.Context) {
	leads := a.o.Leads()
	if leads != a.led {
		a.led, a.due, a.told = leads, time.Time{}, ""
		// Another may have led meanwhile.
		a.carried.forget()
		if !leads {
			a.o.Report(false, false)
		}
	}
	if !leads {
		return
	}
	spare, known := a.o.Spare()
	if !known || time.Now().Before(a.due) && spare == a.spared {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, passFor)
	defer cancel()
	result, err := a.pass(bounded, spare)
	if ctx.Err() != nil {
		return
	}
	a.spared = spare
	a.due = time.Now().Add(repairEvery)
	if err != nil {
		a.due = time.Now().Add(retryAfter)
	}
	if result != unknown {
		a.o.Report(true, result == armed)
	}
	a.tell(ctx, result, err)
}

// tell logs what is not what was told last.
func (a *Armer) tell(ctx context.Context, result outcome, err error) {
	text := string(result)
	if err != nil {
		text += err.Error()
	}
	if a.told == text {
		return
	}
	a.told = text
	log := logr.FromContextOrDiscard(ctx).WithValues("name", a.o.Name)
	switch {
	case result == unknown:
		log.Error(err, "cannot tell whether the API server asks this webhook")
	case err != nil && result == armed:
		log.Error(err, "armed, but the webhook configurations are not as they should be")
	case err != nil:
		log.Error(err, "not armed: the API server does not ask this webhook about everything yet")
	case result == disarmed:
		log.Info("disarmed: the API server does not ask this webhook, and images are not examined; pratique arm ends that",
			"configMap", a.o.Namespace+"/"+Marker)
	case result == asleep:
		log.Info("not armed: waiting for the authorities to be written into the webhook configurations")
	case result == armed:
		log.Info("armed: the API server asks this webhook")
	}
}
