// Reads gzip files with compress/gzip, and URLs with net/http, which decodes them itself, and prints the SHA-256 of what
// they hold and the number of lines.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

type count struct{ rows int }

func (c *count) Write(piece []byte) (int, error) {
	c.rows += bytes.Count(piece, []byte("\n"))
	return len(piece), nil
}

func open(source string) (io.Reader, error) {
	if !strings.HasPrefix(source, "http") {
		file, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		return gzip.NewReader(file)
	}
	answer, err := http.Get(source)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != 200 || !answer.Uncompressed {
		return nil, fmt.Errorf("%s: %s, decoded by net/http: %t", source, answer.Status, answer.Uncompressed)
	}
	return answer.Body, nil
}

func main() {
	for _, source := range os.Args[1:] {
		text, err := open(source)
		digest, rows := sha256.New(), &count{}
		if err == nil {
			_, err = io.Copy(io.MultiWriter(digest, rows), text)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%x %d\n", digest.Sum(nil), rows.rows)
	}
}
