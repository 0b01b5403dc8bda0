// Empty does nothing. Its run time is the time that any Go program needs to start.
package main

func main() {}
