// Bridgeveth is the executable file of all plugins. The name under which the file is started
// selects the plugin. Some of the names are names of reference plugins (docs/dropin.md).
//
// Start with main.go, which has the table of plugins. The verbs of the plugins are in plugins/.
// reference.go calls the reference plugins for the attachments that they have made.
package main
