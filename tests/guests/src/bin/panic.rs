//! Panics.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    panic!("as asked");
}
