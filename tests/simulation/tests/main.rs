//! The functions in simulated worlds. One program for all of these tests: each program is linked anew with everything that it
//! tests, and one program's tests run beside each other.

mod alerts;
mod bells;
mod budget;
mod bulk;
mod causes;
mod comparing;
mod deliveries;
mod deltas;
mod doors;
mod download;
mod erasing;
mod estimates;
mod facts;
mod fakes;
mod folders;
mod identity;
mod intake;
mod interleavings;
mod job;
mod library;
mod lists;
mod people;
mod planted;
mod previews;
mod promise;
mod receiver;
mod seeds;
mod slices;
mod sources;
mod upgrade;
mod writer;
mod writing;

// Worlds are many small allocations on every thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
