// Package report represents what the doctor found on the path of one packet, and the commands that
// fix it.
//
// A Report is a list of Stations in the order of the path. Only a Station with the State Bad keeps
// the packet from arriving. Its Remedy is a command for a shell, or advice for a person.
//
// The package must not contain anything about networks. Start with Report in report.go. command.go
// writes the commands.
package report
