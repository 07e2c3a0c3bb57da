package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/schema"
)

func newTables() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "tables [NAME]",
		Short: "List the tables, or the columns of one",
		Long: `List the tables that goshawk query knows, each with what its rows are; or, given the
name of a table, its columns with their types and meanings.

Columns marked hidden are not part of SELECT *. A column marked required must have a
condition in WHERE; index and additional mark columns whose conditions make a query
cheaper, or change what it looks at.`,
		Example: `  goshawk tables
  goshawk tables processes
  goshawk tables processes --format json`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return failf(exitUsage, "no format is called %q; formats are table, json", format)
			}
			all := definitions()
			if len(args) == 0 {
				return failed(listTables(cmd.OutOrStdout(), all, format))
			}
			for _, d := range all {
				for _, name := range append([]string{d.Name}, d.Aliases...) {
					if strings.EqualFold(name, args[0]) {
						return failed(showTable(cmd.OutOrStdout(), d, format))
					}
				}
			}
			return failf(exitUsage, "no table is called %q; goshawk tables lists them", args[0])
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "how to print: table or json")
	return cmd
}

// tableText and columnText are a table and a column as JSON.
type tableText struct {
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Events      bool         `json:"events"`
	Aliases     []string     `json:"aliases,omitempty"`
	Columns     []columnText `json:"columns"`
}

type columnText struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Flags       []string `json:"flags,omitempty"`
	Aliases     []string `json:"aliases,omitempty"`
	Description string   `json:"description"`
}

// columnFlags are the words for a column's flags.
var columnFlags = []struct {
	flag schema.Flag
	word string
}{
	{schema.Required, "required"}, {schema.Index, "index"}, {schema.Optimized, "optimized"},
	{schema.Additional, "additional"}, {schema.Hidden, "hidden"},
}

func describe(d *schema.Def) tableText {
	t := tableText{Name: d.Name, Description: d.Doc, Events: d.Events, Aliases: d.Aliases}
	for i := range d.Columns {
		c := &d.Columns[i]
		if c.Has(schema.Internal) {
			continue
		}
		text := columnText{Name: c.Name, Type: c.Type.String(), Aliases: c.Aliases, Description: c.Doc}
		for _, f := range columnFlags {
			if c.Has(f.flag) {
				text.Flags = append(text.Flags, f.word)
			}
		}
		t.Columns = append(t.Columns, text)
	}
	return t
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func listTables(w io.Writer, all []*schema.Def, format string) error {
	if format == "json" {
		list := make([]tableText, len(all))
		for i, d := range all {
			list[i] = describe(d)
		}
		return printJSON(w, list)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range all {
		fmt.Fprintf(t, "%s\t%s\n", d.Name, d.Doc)
	}
	return t.Flush()
}

func showTable(w io.Writer, d *schema.Def, format string) error {
	text := describe(d)
	if format == "json" {
		return printJSON(w, text)
	}
	fmt.Fprintf(w, "%s: %s\n", d.Name, d.Doc)
	if len(d.Aliases) > 0 {
		fmt.Fprintf(w, "Also called %s.\n", strings.Join(d.Aliases, ", "))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range text.Columns {
		doc := c.Description
		if len(c.Aliases) > 0 {
			doc += " (also " + strings.Join(c.Aliases, ", ") + ")"
		}
		if len(c.Flags) > 0 {
			doc += " [" + strings.Join(c.Flags, ", ") + "]"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, c.Type, doc)
	}
	return t.Flush()
}
