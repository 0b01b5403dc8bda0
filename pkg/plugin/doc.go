// Package plugin is the edge between CNI and a plugin, the same for each plugin. It runs the verbs, prints
// results and errors as the CNI specification asks, and reads configurations so that an unknown key is
// reported.
//
// Start with Main in main.go. decode.go reads JSON, encode.go and result.go write results, errors.go has the
// error codes, names.go the names of the plugins, and execute.go runs other plugins.
//
// The package does not know the configuration keys of a plugin, links or addresses. It avoids imports that
// are slow to start, because every ADD pays for them.
package plugin
