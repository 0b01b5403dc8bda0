// Package plugin is the code between CNI and the plugins, and is the same for each plugin. It runs the
// verbs, prints results and errors in the form of the CNI specification, and reports unknown keys in
// configurations.
//
// Start with Main in main.go. decode.go reads JSON, encode.go and result.go write results, errors.go has the
// error codes, names.go the names of the plugins, and execute.go runs other plugins.
//
// The package does not know the configuration keys of a plugin, links or addresses. It avoids imports that
// are slow to start, because they would slow down every ADD.
package plugin
