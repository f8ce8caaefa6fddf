package main

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// Prometheus' own text parsers behind a pipe: an oracle for `source::scrape::exposition`. Each line of the input is
// `T` or `O` (text, OpenMetrics), a blank and a body in hex; each line of the output says what it means, or `ERR`.
//
// To build it, in a directory with a go.mod that requires github.com/prometheus/prometheus v0.313.5 (the one that the
// end-to-end tests build Prometheus with):
//
//	go build -o ~/.cache/pegel-tests/textparse-3.13.5 .
//
// What this project does otherwise on purpose is done here as well: blanks before a name are cut from it, names that
// are not UTF-8 and timestamps beyond 64 bits are errors, and quoted names of families are unescaped.
func main() {
	sc := bufio.NewScanner(os.Stdin)
	sc.Buffer(make([]byte, 1<<24), 1<<24)
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	for sc.Scan() {
		f, h, _ := strings.Cut(sc.Text(), " ")
		b, _ := hex.DecodeString(h)
		fmt.Fprintln(w, run(f, b))
	}
}

func run(f string, b []byte) (out string) {
	defer func() {
		if r := recover(); r != nil {
			out = "PANIC"
		}
	}()
	st := labels.NewSymbolTable()
	var p textparse.Parser
	if f == "T" {
		p = textparse.NewPromParser(b, st, false)
	} else {
		p = textparse.NewOpenMetricsParser(b, st)
	}
	var sb strings.Builder
	for {
		et, err := p.Next()
		if errors.Is(err, io.EOF) {
			return "OK " + sb.String()
		}
		if err != nil {
			return "ERR"
		}
		switch et {
		case textparse.EntrySeries:
			s, ts, v := p.Series()
			var l labels.Labels
			p.Labels(&l)
			text := strings.TrimLeft(string(s), " \t")
			var pairs [][2]string
			valid := true
			l.Range(func(l labels.Label) {
				if l.Name == labels.MetricName && len(text) < len(s) && text[0] != '{' {
					l.Value = strings.TrimLeft(l.Value, " \t")
				}
				valid = valid && utf8.ValidString(l.Name) && utf8.ValidString(l.Value)
				pairs = append(pairs, [2]string{l.Name, l.Value})
			})
			if !valid {
				return "ERR"
			}
			slices.SortFunc(pairs, func(a, b [2]string) int {
				return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
			})
			fmt.Fprintf(&sb, "S%x|", text)
			for _, pair := range pairs {
				fmt.Fprintf(&sb, "%x=%x,", pair[0], pair[1])
			}
			fmt.Fprintf(&sb, "|%016x|", math.Float64bits(v))
			if ts != nil {
				if *ts == math.MinInt64 {
					return "ERR" // seconds beyond an int64: not a number that Go defines
				}
				fmt.Fprintf(&sb, "%d", *ts)
			}
			sb.WriteString(";")
		case textparse.EntryHelp:
			m, t := p.Help()
			m, ok := family(m)
			if !ok {
				return "ERR"
			}
			fmt.Fprintf(&sb, "H%x|%x;", m, t)
		case textparse.EntryType:
			m, t := p.Type()
			m, ok := family(m)
			if !ok {
				return "ERR"
			}
			fmt.Fprintf(&sb, "Y%x|%s;", m, t)
		case textparse.EntryUnit:
			m, t := p.Unit()
			m, ok := family(m)
			if !ok {
				return "ERR"
			}
			fmt.Fprintf(&sb, "U%x|%x;", m, t)
		}
	}
}

var escapes = strings.NewReplacer(`\"`, "\"", `\\`, "\\", `\n`, "\n")

// family resolves the escapes of a quoted family name and says whether it is UTF-8.
func family(name []byte) ([]byte, bool) {
	return []byte(escapes.Replace(string(name))), utf8.Valid(name)
}
