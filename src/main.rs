//! Parse, call the command, map the result to an exit code.

fn main() {}
