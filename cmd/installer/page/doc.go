// Package page makes of the JSON that the installer writes (reports of
// to-disk, to-filesystem, build, finalize, holders and verify) one HTML page
// for a person: self-contained, without scripts, and safe whatever the JSON says.
//
// What a report contains is not decided here: each kind's types are those of
// the package that makes it, and their forms are in package schema.
package page
