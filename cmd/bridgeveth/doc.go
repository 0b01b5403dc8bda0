// Bridgeveth is the executable file of all plugins. The name under which it is started selects the
// plugin. Some of these names are those of reference plugins (docs/dropin.md).
//
// Start with main.go, which has the table of plugins. The verbs of the plugins are in plugins/.
// reference.go calls the reference plugins for the attachments that they have made.
package main
