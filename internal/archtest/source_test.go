package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/teahouse-chat/teahouse"

// file is one Go file of the module.
type file struct {
	path    string // from the root, with slashes
	dir     string // "." for the root
	test    bool
	lines   int
	imports []string
	ast     *ast.File
}

// parse reads the file at the path from its source.
func parse(name string, src []byte) (*file, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &file{
		path:  name,
		dir:   path.Dir(name),
		test:  strings.HasSuffix(name, "_test.go"),
		lines: bytes.Count(src, []byte("\n")),
		ast:   parsed,
	}
	for _, spec := range parsed.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		f.imports = append(f.imports, imp)
	}
	return f, nil
}

// moduleFiles parses all Go files of the module, whatever their build tags say.
func moduleFiles(t *testing.T) []*file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var files []*file
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(base) != ".go" {
			return nil
		}
		src, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		f, err := parse(name, src)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// uses calls found with every use of a member of the imported package, such as
// Now of time.
func (f *file) uses(pkg string, found func(member string)) {
	name := path.Base(pkg)
	for _, spec := range f.ast.Imports {
		if spec.Path.Value == strconv.Quote(pkg) && spec.Name != nil {
			name = spec.Name.Name
		}
	}
	for _, imp := range f.imports {
		if imp != pkg {
			continue
		}
		if name == "." {
			found("(everything, by a dot import)")
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
					found(sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// within tells whether a folder is one of the roots or lies in one.
func within(dir string, roots ...string) bool {
	for _, root := range roots {
		if dir == root || strings.HasPrefix(dir, root+"/") {
			return true
		}
	}
	return false
}
