// Package page turns the JSON of a report (of to-disk, to-filesystem, build,
// finalize, holders or verify) into one HTML page for a person: self-contained,
// without scripts, and safe for any content of the JSON.
//
// The content of a report belongs elsewhere: each kind's types are those of
// the package that makes it, and their forms are in package schema.
package page
