// Renders a chart to stdout as `helm template` does, with the libraries that Helm itself uses: Go's
// templates and sprig. No package registry has a helm binary; Debian has these two.
//
//	render CHART [VALUES.yaml ...]
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type values = map[string]interface{}

func main() {
	if len(os.Args) < 2 {
		stop(fmt.Errorf("usage: render CHART [VALUES.yaml ...]"))
	}
	folder := os.Args[1]
	chart, given := read(filepath.Join(folder, "Chart.yaml")), read(filepath.Join(folder, "values.yaml"))
	for _, file := range os.Args[2:] {
		lay(given, read(file))
	}
	about := values{"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]}
	release := values{"Name": "demo", "Namespace": "default", "Service": "Helm"}
	fmt.Print(render(folder, values{"Values": given, "Chart": about, "Release": release}))
}

// read returns a YAML file.
func read(file string) values {
	text, err := os.ReadFile(file)
	stop(err)
	found := values{}
	stop(yaml.Unmarshal(text, &found))
	return found
}

// lay puts values over others, map by map.
func lay(under, over values) {
	for key, value := range over {
		inner, isMap := value.(values)
		if below, both := under[key].(values); isMap && both {
			lay(below, inner)
		} else {
			under[key] = value
		}
	}
}

// render runs every template of a chart, and joins what is not empty.
func render(folder string, top values) string {
	all := template.New("chart").Option("missingkey=error").Funcs(sprig.TxtFuncMap())
	all.Funcs(template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var out bytes.Buffer
			err := all.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"toYaml": func(value interface{}) (string, error) {
			var out bytes.Buffer
			writer := yaml.NewEncoder(&out)
			writer.SetIndent(2)
			err := writer.Encode(value)
			return strings.TrimSuffix(out.String(), "\n"), err
		},
	})
	files, err := filepath.Glob(filepath.Join(folder, "templates", "*"))
	stop(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		stop(err)
		_, err = all.New(filepath.Base(file)).Parse(string(text))
		stop(err)
	}
	var documents []string
	for _, file := range files {
		if filepath.Ext(file) != ".yaml" {
			continue
		}
		var out bytes.Buffer
		stop(all.ExecuteTemplate(&out, filepath.Base(file), top))
		if text := strings.TrimSpace(out.String()); text != "" {
			documents = append(documents, text)
		}
	}
	return strings.Join(documents, "\n---\n") + "\n"
}

func stop(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
