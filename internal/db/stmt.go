package db

// Stmt is a registered statement.
type Stmt struct{ text string }

// SQL registers a statement; a package-level variable of its feature.
func SQL(text string) *Stmt { return &Stmt{text: text} }

// Schema registers a feature's migrations, numbered from 1 in order. It returns
// a value so that it can stand in a package-level var _ =.
func Schema(feature string, migrations ...string) struct{} { return struct{}{} }
