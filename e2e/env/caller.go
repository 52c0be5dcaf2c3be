// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package env

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// CallerName is the common name in the API server's client certificate.
const CallerName = "kube-apiserver-to-pratique"

// A Caller is who the API server is to the webhook at one address, as an
// AdmissionConfiguration tells it (docs/configuration.md). To all others it
// shows no certificate.
type Caller struct {
	cluster.ClientCert

	// Address of that webhook, as host:port.
	Address string

	// held keeps the port until a server takes it: the API server has to know
	// it long before.
	held net.Listener
}

// newCaller chooses the address, makes the certificate, and returns the flags of
// kube-apiserver by which it shows it.
func newCaller(dir string) (_ *Caller, flags []string, err error) {
	c := &Caller{}
	// kube-apiserver runs in another working directory.
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, fmt.Errorf("finding the absolute path of %q: %w", dir, err)
	}
	if c.ClientCert, err = cluster.NewClientCert(dir, CallerName); err != nil {
		return nil, nil, err
	}
	if c.held, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, nil, fmt.Errorf("looking for a free port: %w", err)
	}
	c.Address = c.held.Addr().String()
	config := filepath.Join(dir, "admission.yaml")
	if err := c.write(config, filepath.Join(dir, "kubeconfig.yaml")); err != nil {
		c.release()
		return nil, nil, err
	}
	return c, []string{"--admission-control-config-file=" + config}, nil
}

// write writes the AdmissionConfiguration and the kubeconfig that it names. They
// are as the documentation has them.
func (c *Caller) write(config, kubeconfig string) error {
	users := clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{
		c.Address: {ClientCertificateData: c.CertPEM, ClientKeyData: c.KeyPEM},
	}}
	if err := clientcmd.WriteToFile(users, kubeconfig); err != nil {
		return fmt.Errorf("writing the webhooks' kubeconfig: %w", err)
	}
	const version = "apiserver.config.k8s.io/v1"
	type object = map[string]any
	var plugins []object
	for _, plugin := range []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"} {
		plugins = append(plugins, object{"name": plugin, "configuration": object{
			"apiVersion": version, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": kubeconfig,
		}})
	}
	content, err := json.Marshal(object{"apiVersion": version, "kind": "AdmissionConfiguration", "plugins": plugins})
	if err != nil {
		return fmt.Errorf("encoding the AdmissionConfiguration: %w", err)
	}
	if err := os.WriteFile(config, content, 0o600); err != nil {
		return fmt.Errorf("writing the AdmissionConfiguration: %w", err)
	}
	return nil
}

// release lets a server have the port.
func (c *Caller) release() { _ = c.held.Close() }
