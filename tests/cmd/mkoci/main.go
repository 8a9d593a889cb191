// Command mkoci makes an OCI image layout of layer tars, lowest first: the last step of
// tests/image/make.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"installer/tests/layout"
)

func main() {
	o := layout.Options{Labels: map[string]string{}, Created: time.Now().Truncate(time.Second)}
	dir := flag.String("o", "", "directory to make")
	flag.StringVar(&o.Tag, "tag", "latest", "tag of the image")
	flag.Func("label", "label `key=value`, may be repeated", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want key=value")
		}
		o.Labels[k] = v
		return nil
	})
	flag.Parse()
	if *dir == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: mkoci -o DIR [-tag TAG] [-label K=V]... LAYER.tar...")
		os.Exit(2)
	}
	if err := layout.Write(*dir, flag.Args(), o); err != nil {
		fmt.Fprintln(os.Stderr, "mkoci:", err)
		os.Exit(1)
	}
}
