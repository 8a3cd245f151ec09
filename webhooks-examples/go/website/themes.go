// The themes of this moment: those that ship with the hook, or those of a file that is followed.

package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// themeFile gives themes from a JSON file (name -> {"color", "fontFamily"}), read again when it changes; without a
// path, those that ship with the hook.
type themeFile struct {
	path   string
	lock   sync.Mutex
	seen   os.FileInfo
	themes object
}

func newThemeFile(path string) *themeFile {
	return &themeFile{path: path, themes: shippedThemes}
}

// now is the themes of this moment. A file that can't be read or parsed leaves them as they were.
func (t *themeFile) now() object {
	if t.path == "" {
		return t.themes
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	if err := t.follow(); err != nil {
		fmt.Fprintf(os.Stderr, "--themes %s: %v\n", t.path, err)
	}
	return t.themes
}

func (t *themeFile) follow() error {
	info, err := os.Stat(t.path)
	if err != nil {
		return err
	}
	if t.seen != nil && unchanged(t.seen, info) {
		return nil
	}
	text, err := os.ReadFile(t.path)
	if err != nil {
		return err
	}
	value, err := parse(text)
	if err != nil {
		return err
	}
	themes, ok := value.(object)
	if !ok {
		return errors.New("must be an object of themes by name")
	}
	t.seen, t.themes = info, themes
	return nil
}

func unchanged(before, after os.FileInfo) bool {
	return os.SameFile(before, after) && before.ModTime().Equal(after.ModTime()) && before.Size() == after.Size()
}
