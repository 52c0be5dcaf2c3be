// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// catalogKey is what the configuration file calls rows for the catalog.
const catalogKey = "catalog"

// readConfig sets the flags that the configuration file names and the command
// line does not.
func (f *serveFlags) readConfig(c *cobra.Command) error {
	if f.config == "" {
		return nil
	}
	data, err := os.ReadFile(f.config)
	if err != nil {
		return fmt.Errorf("reading --config: %w", err)
	}
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.config, err)
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return fmt.Errorf("reading %s: it must map flags to values", f.config)
	}
	if rows, ok := entries[catalogKey]; ok {
		f.catalog = append(f.catalog, rows)
		delete(entries, catalogKey)
	}
	var mistakes []error
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := setFlag(c.Flags(), name, entries[name]); err != nil {
			mistakes = append(mistakes, fmt.Errorf("reading %s: %w", f.config, err))
		}
	}
	return errors.Join(mistakes...)
}

// setFlag sets a flag, unless the command line did.
func setFlag(flags *pflag.FlagSet, name string, value json.RawMessage) error {
	flag := flags.Lookup(name)
	if flag == nil || name == "config" || name == "help" {
		return fmt.Errorf("no such flag: %q", name)
	}
	if flag.Changed {
		return nil
	}
	text, err := flagText(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return flags.Set(name, text)
}

// flagText writes a YAML value as the command line would: a list with commas.
func flagText(raw json.RawMessage) (string, error) {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", fmt.Errorf("malformed value: %w", err)
	}
	switch value := value.(type) {
	case string:
		return value, nil
	case []any:
		texts := make([]string, len(value))
		for i, item := range value {
			texts[i] = fmt.Sprint(item)
		}
		if slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, ",") }) {
			return "", errors.New("a list's items must not hold commas")
		}
		return strings.Join(texts, ","), nil
	case map[string]any, nil:
		return "", errors.New("must be a value or a list")
	default:
		return strings.TrimSpace(string(raw)), nil
	}
}
