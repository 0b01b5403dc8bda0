// Package plugin contains the code between CNI and the plugins that all plugins share. It runs the
// verbs, prints results and errors in the form of the CNI specification, and reports unknown keys
// in configurations.
//
// Start with Main in main.go. decode.go reads JSON, encode.go and result.go write results,
// errors.go has the error codes, names.go has the names of the plugins, and execute.go runs other
// plugins.
//
// The package contains nothing about the configuration keys of a plugin, about links or about
// addresses. It must not import packages that are slow to start, because they would slow down every
// ADD.
package plugin
