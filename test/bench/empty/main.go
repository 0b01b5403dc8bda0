// Empty does nothing. Its run time is the time that every Go program needs to start.
package main

func main() {}
