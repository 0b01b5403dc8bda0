// Bridgeveth is the program of all plugins. It runs the plugin that has the name of the executed file.
// Some plugins take the place of the reference plugins of the same name (docs/dropin.md).
//
// Start with main.go, which has the table of plugins. Their verbs are in plugins/. reference.go calls
// the reference plugins for attachments that they have made.
package main
