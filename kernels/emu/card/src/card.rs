//! The card: memory, queues, and the order in which work is done.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use kernel_emu::{RawArg, Schedule, launch_raw, table};

use crate::status::Status;

/// How an image of this card begins: as ELF, which images are.
pub(crate) const MAGIC: &str = "\x7fELF of the emulated card\n";

/// Of fresh memory: NaN.
const POISON: u8 = 0xff;
/// Between allocations: so much lies outside of all.
const GUARD: u64 = 1 << 16;
const FIRST_ADDRESS: u64 = 0x7d00_0000_0000;

/// By the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) memory_bytes: u64,
    pub(crate) seed: u64,
    pub(crate) fail: Vec<(String, u64)>,
    pub(crate) report: Option<PathBuf>,
}

impl Config {
    pub(crate) fn from_env() -> Self {
        let get = |key: &str| std::env::var(key).ok();
        let number = |key: &str| get(key).and_then(|v| v.parse::<u64>().ok());
        let fail = get("CAUDA_EMU_FAIL").unwrap_or_default();
        Self {
            memory_bytes: number("CAUDA_EMU_MEMORY_MIB").unwrap_or(1024) << 20,
            seed: number("CAUDA_EMU_SEED").unwrap_or(0),
            fail: fail
                .split(',')
                .filter_map(|f| f.split_once(':'))
                .filter_map(|(kind, n)| Some((kind.to_owned(), n.parse().ok()?)))
                .collect(),
            report: get("CAUDA_EMU_REPORT").map(PathBuf::from),
        }
    }
}

#[derive(Clone)]
#[repr(C, align(256))]
struct Row([u8; 256]);

/// Bytes, aligned as a card's.
struct Memory(Vec<Row>);

impl Memory {
    fn new(len: usize) -> Self {
        Self(vec![Row([POISON; 256]); len.div_ceil(256)])
    }

    fn base(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its stream has not come to the allocation.
    Queued,
    Ready,
    Freed,
}

struct Allocation {
    memory: Memory,
    len: usize,
    state: State,
}

/// A side of a copy.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Device(u64),
    Pinned(usize),
    /// Pageable memory, taken at the call as the driver does.
    Taken(Vec<u8>),
}

/// An argument as it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Address(u64),
    Number(u32),
}

/// Work on a stream.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Copy {
        to: Place,
        from: Place,
        len: usize,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        n: usize,
    },
    Launch {
        kernel: usize,
        grid: [u32; 3],
        block: [u32; 3],
        values: Vec<Value>,
    },
    Record(u64, u64),
    Wait(u64, u64),
    Allocate(u64),
    Free(u64),
}

#[derive(Default)]
struct Stream {
    queue: VecDeque<Op>,
    capture: Option<Vec<Op>>,
    is_destroyed: bool,
}

#[derive(Default)]
struct Event {
    recorded: u64,
    done: u64,
    done_at: u64,
    n_asked: u64,
    is_destroyed: bool,
}

#[derive(Default)]
pub(crate) struct Card {
    pub(crate) config: Config,
    pub(crate) is_initialised: bool,
    pub(crate) n_retained: u32,
    /// Contexts that were before this one.
    pub(crate) generation: u64,
    sticky: Option<Status>,
    counts: BTreeMap<&'static str, u64>,
    last_handle: u64,
    last_address: u64,
    used_bytes: u64,
    clock: u64,
    random: u64,
    allocations: BTreeMap<u64, Allocation>,
    /// Address and length.
    pinned: BTreeMap<usize, usize>,
    streams: BTreeMap<u64, Stream>,
    events: BTreeMap<u64, Event>,
    modules: BTreeMap<u64, &'static str>,
    functions: BTreeMap<u64, (u64, usize)>,
    graphs: BTreeMap<u64, Vec<Op>>,
    executables: BTreeMap<u64, Vec<Op>>,
    pools: BTreeMap<u64, ()>,
    /// For tests: what would be in the report.
    #[cfg(test)]
    pub(crate) said: Vec<String>,
}

pub(crate) type Fallible<T = ()> = Result<T, Status>;

impl Card {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            last_address: FIRST_ADDRESS,
            random: config.seed,
            config,
            ..Self::default()
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        use std::io::Write;
        #[cfg(test)]
        self.said.push(text.to_owned());
        let line = format!("{text}\n");
        let written = self.config.report.as_ref().map(|path| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).append(true).open(path)?;
            file.write_all(line.as_bytes())
        });
        if !matches!(written, Some(Ok(()))) {
            // Nobody to tell when stderr is gone.
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
    }

    /// The host did what the contract of the driver forbids.
    pub(crate) fn misuse<T>(&mut self, status: Status, text: &str) -> Fallible<T> {
        self.say(&format!("misuse: {text}"));
        Err(status)
    }

    /// Ends all work: what a card does after a fault.
    fn break_down(&mut self, status: Status, text: &str) {
        self.say(&format!("fault: {text}"));
        self.sticky = Some(status);
        for stream in self.streams.values_mut() {
            stream.queue.clear();
        }
    }

    pub(crate) fn check(&self) -> Fallible {
        self.sticky.map_or(Ok(()), Err)
    }

    /// Whether this one of its kind is to fail.
    pub(crate) fn is_failing(&mut self, kind: &'static str) -> bool {
        let n = self.counts.entry(kind).or_default();
        *n += 1;
        let n = *n;
        self.config.fail.iter().any(|(k, at)| k == kind && *at == n)
    }

    fn handle(&mut self) -> u64 {
        self.last_handle += 16;
        0xca0d_0000_0000 + self.last_handle
    }

    // Contexts

    pub(crate) fn retain(&mut self) -> Fallible {
        if self.is_failing("retain") {
            return Err(Status::OUT_OF_MEMORY);
        }
        self.n_retained += 1;
        Ok(())
    }

    pub(crate) fn release(&mut self) -> Fallible {
        if self.n_retained == 0 {
            return self.misuse(
                Status::INVALID_CONTEXT,
                "a context is released that nobody retained",
            );
        }
        self.n_retained -= 1;
        if self.n_retained == 0 {
            if self.sticky.is_none() {
                self.run_all();
            }
            let left = self.left();
            self.say(&format!("released; left: {left}"));
            self.clear();
        }
        Ok(())
    }

    pub(crate) fn reset(&mut self) {
        let left = self.left();
        self.say(&format!("reset; dropped: {left}"));
        self.clear();
    }

    fn clear(&mut self) {
        *self = Self {
            config: std::mem::take(&mut self.config),
            is_initialised: true,
            n_retained: self.n_retained,
            generation: self.generation + 1,
            counts: std::mem::take(&mut self.counts),
            last_handle: self.last_handle,
            last_address: self.last_address,
            random: self.random,
            #[cfg(test)]
            said: std::mem::take(&mut self.said),
            ..Self::default()
        };
    }

    /// What is alive, in words.
    pub(crate) fn left(&self) -> String {
        let alive = |a: &&Allocation| a.state != State::Freed;
        let counts = [
            (
                "allocations",
                self.allocations.values().filter(alive).count(),
            ),
            ("pinned", self.pinned.len()),
            (
                "streams",
                self.streams.values().filter(|s| !s.is_destroyed).count(),
            ),
            (
                "events",
                self.events.values().filter(|e| !e.is_destroyed).count(),
            ),
            ("modules", self.modules.len()),
            ("graphs", self.graphs.len() + self.executables.len()),
            ("pools", self.pools.len()),
        ];
        let words: Vec<String> = counts
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{n} {what}"))
            .collect();
        if words.is_empty() {
            "nothing".into()
        } else {
            words.join(", ")
        }
    }

    // Memory

    pub(crate) fn memory(&self) -> (u64, u64) {
        let total = self.config.memory_bytes;
        (total.saturating_sub(self.used_bytes), total)
    }

    pub(crate) fn create_pool(&mut self) -> u64 {
        let handle = self.handle();
        self.pools.insert(handle, ());
        handle
    }

    pub(crate) fn has_pool(&mut self, pool: u64) -> Fallible {
        match self.pools.contains_key(&pool) {
            true => Ok(()),
            false => self.misuse(Status::INVALID_HANDLE, "a pool that is none"),
        }
    }

    pub(crate) fn destroy_pool(&mut self, pool: u64) -> Fallible {
        self.has_pool(pool)?;
        self.pools.remove(&pool);
        Ok(())
    }

    pub(crate) fn allocate(&mut self, len: usize, pool: u64, stream: u64) -> Fallible<u64> {
        self.has_pool(pool)?;
        if len == 0 {
            return self.misuse(Status::INVALID_VALUE, "an allocation of nothing");
        }
        if self.is_failing("alloc") || len as u64 > self.memory().0 {
            return Err(Status::OUT_OF_MEMORY);
        }
        let address = self.last_address + GUARD;
        let allocation = Allocation {
            memory: Memory::new(len),
            len,
            state: State::Queued,
        };
        self.enqueue(stream, Op::Allocate(address))?;
        self.last_address = (address + len as u64).next_multiple_of(256);
        self.used_bytes += len as u64;
        self.allocations.insert(address, allocation);
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64, stream: u64) -> Fallible {
        match self.allocations.get(&address).map(|a| a.state) {
            None => self.misuse(Status::INVALID_VALUE, "memory is freed that is none"),
            Some(State::Freed) => self.misuse(Status::INVALID_VALUE, "memory is freed twice"),
            Some(_) => self.enqueue(stream, Op::Free(address)),
        }
    }

    /// Memory of the host that copies may use while it goes on.
    pub(crate) fn pin(&mut self, address: usize, len: usize) -> Fallible {
        if len == 0 || self.is_pinned(address, len)? {
            return self.misuse(Status::INVALID_VALUE, "memory is pinned twice, or is none");
        }
        if self.is_failing("pinned") {
            return Err(Status::OUT_OF_MEMORY);
        }
        self.pinned.insert(address, len);
        Ok(())
    }

    pub(crate) fn unpin(&mut self, address: usize) -> Fallible {
        let Some(len) = self.pinned.get(&address) else {
            return self.misuse(Status::INVALID_VALUE, "memory is unpinned that is not");
        };
        let range = address..address + len;
        let is_inside = |p: &Place| matches!(p, Place::Pinned(at) if range.contains(at));
        let queued = self.streams.values().flat_map(|s| &s.queue);
        let is_queued = queued
            .filter_map(|op| match op {
                Op::Copy { to, from, .. } => Some([to, from]),
                _ => None,
            })
            .flatten()
            .any(is_inside);
        self.pinned.remove(&address);
        if is_queued {
            let text = "memory is unpinned while a copy of it is queued";
            self.break_down(Status::ILLEGAL_ADDRESS, text);
            return self.misuse(Status::ILLEGAL_ADDRESS, text);
        }
        Ok(())
    }

    /// Host memory of a copy.
    ///
    /// # Errors
    /// It begins in pinned memory and ends outside.
    pub(crate) fn is_pinned(&mut self, address: usize, len: usize) -> Fallible<bool> {
        let below = self.pinned.range(..=address).next_back();
        match below.filter(|(at, n)| address < **at + **n) {
            None => Ok(false),
            Some((at, n)) if address + len <= at + n => Ok(true),
            Some(_) => self.misuse(
                Status::INVALID_VALUE,
                "a copy goes beyond its pinned memory",
            ),
        }
    }

    /// Base, length and offset of the allocation that an address lies in, ready to be used.
    fn find(&mut self, address: u64) -> Result<(*mut u8, usize, usize), String> {
        let below = self.allocations.range_mut(..=address).next_back();
        let Some((base, found)) = below.filter(|(b, a)| address < **b + a.len as u64) else {
            return Err(format!("{address:#x} lies in no allocation"));
        };
        let offset = (address - base) as usize;
        match found.state {
            State::Ready => Ok((found.memory.base(), found.len, offset)),
            State::Queued => Err(format!(
                "{address:#x} is used before its allocation, which is queued on another stream"
            )),
            State::Freed => Err(format!("{address:#x} was freed")),
        }
    }

    fn device_range(&mut self, address: u64, len: usize) -> Result<*mut u8, String> {
        let (base, size, offset) = self.find(address)?;
        if len > size - offset {
            return Err(format!(
                "{len} bytes from byte {offset} of an allocation of {size}"
            ));
        }
        // SAFETY: inside the allocation, as the line above checked.
        Ok(unsafe { base.add(offset) })
    }

    // Streams, events

    pub(crate) fn create_stream(&mut self) -> Fallible<u64> {
        if self.is_failing("stream") {
            return Err(Status::OUT_OF_MEMORY);
        }
        let handle = self.handle();
        self.streams.insert(handle, Stream::default());
        Ok(handle)
    }

    /// Its work goes on.
    pub(crate) fn destroy_stream(&mut self, stream: u64) -> Fallible {
        self.stream(stream)?.is_destroyed = true;
        Ok(())
    }

    fn stream(&mut self, stream: u64) -> Fallible<&mut Stream> {
        match self.streams.get(&stream) {
            Some(s) if !s.is_destroyed => {}
            _ => return self.misuse(Status::INVALID_HANDLE, "a stream that is none"),
        }
        self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)
    }

    pub(crate) fn create_event(&mut self) -> Fallible<u64> {
        if self.is_failing("event") {
            return Err(Status::OUT_OF_MEMORY);
        }
        let handle = self.handle();
        self.events.insert(handle, Event::default());
        Ok(handle)
    }

    pub(crate) fn destroy_event(&mut self, event: u64) -> Fallible {
        // Who waits for it already, waits on.
        self.event(event)?.is_destroyed = true;
        Ok(())
    }

    fn event(&mut self, event: u64) -> Fallible<&mut Event> {
        if self.events.get(&event).is_none_or(|e| e.is_destroyed) {
            return self.misuse(Status::INVALID_HANDLE, "an event that is none");
        }
        self.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)
    }

    pub(crate) fn record(&mut self, event: u64, stream: u64) -> Fallible {
        let e = self.event(event)?;
        e.recorded += 1;
        e.n_asked = 0;
        let number = e.recorded;
        self.enqueue(stream, Op::Record(event, number))
    }

    pub(crate) fn wait(&mut self, stream: u64, event: u64) -> Fallible {
        let number = self.event(event)?.recorded;
        self.enqueue(stream, Op::Wait(event, number))
    }

    /// The first question gets no; every further one lets a piece of the work be done.
    pub(crate) fn query(&mut self, event: u64) -> Fallible {
        let e = self.event(event)?;
        let number = e.recorded;
        e.n_asked += 1;
        if e.n_asked > 1 && e.done < number {
            self.step(|card| card.stream_of(event, number));
            self.check()?;
        }
        match self.event(event)?.done >= number {
            true => Ok(()),
            false => Err(Status::NOT_READY),
        }
    }

    pub(crate) fn synchronise_event(&mut self, event: u64) -> Fallible {
        let number = self.event(event)?.recorded;
        while self.event(event)?.done < number {
            self.step(|card| card.stream_of(event, number));
            self.check()?;
        }
        Ok(())
    }

    /// In milliseconds of a clock that ticks once for every piece of work.
    pub(crate) fn elapsed(&mut self, from: u64, to: u64) -> Fallible<f32> {
        let mut at = [0u64; 2];
        for (t, event) in at.iter_mut().zip([from, to]) {
            let e = self.event(event)?;
            if e.recorded == 0 {
                return self.misuse(Status::INVALID_HANDLE, "time of an event never recorded");
            }
            if e.done < e.recorded {
                return Err(Status::NOT_READY);
            }
            *t = e.done_at;
        }
        Ok((at[1] as f32 - at[0] as f32) / 1000.0)
    }

    pub(crate) fn synchronise(&mut self, stream: u64) -> Fallible {
        if self.stream(stream)?.capture.is_some() {
            self.stream(stream)?.capture = Some(Vec::new());
            return self.misuse(
                Status::STREAM_CAPTURE_UNSUPPORTED,
                "a stream is waited for during its capture",
            );
        }
        while !self.stream(stream)?.queue.is_empty() {
            self.step(|_| Some(stream));
            self.check()?;
        }
        Ok(())
    }

    pub(crate) fn enqueue(&mut self, stream: u64, op: Op) -> Fallible {
        let s = self.stream(stream)?;
        if let Some(captured) = &mut s.capture {
            if !matches!(op, Op::Copy { .. } | Op::Fill { .. } | Op::Launch { .. }) {
                return self.misuse(
                    Status::STREAM_CAPTURE_UNSUPPORTED,
                    "events and memory are not captured here",
                );
            }
            captured.push(op);
            return Ok(());
        }
        s.queue.push_back(op.clone());
        if let Op::Copy {
            to: Place::Pinned(at),
            len,
            ..
        } = op
        {
            // Nobody may look before the copy is done.
            // SAFETY: pinned memory of `len` bytes, which the caller of a download leaves alone until it is done.
            unsafe { std::ptr::write_bytes(at as *mut u8, POISON, len) };
        }
        self.run_frees();
        Ok(())
    }

    // What is done, and when

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 29)
    }

    /// Where the record that somebody waits for is queued.
    fn stream_of(&self, event: u64, number: u64) -> Option<u64> {
        let is_it = |op: &Op| matches!(op, Op::Record(e, n) if *e == event && *n == number);
        let found = self.streams.iter().find(|(_, s)| s.queue.iter().any(is_it));
        found.map(|(handle, _)| *handle)
    }

    /// What its head waits for, if it must.
    fn blocker(&self, stream: u64) -> Option<(u64, u64)> {
        match self.streams.get(&stream)?.queue.front()? {
            Op::Wait(event, number) => {
                let is_waiting = self.events.get(event).is_some_and(|e| e.done < *number);
                is_waiting.then_some((*event, *number))
            }
            _ => None,
        }
    }

    /// Does one piece of work towards the end of a stream; with a seed, perhaps another one.
    fn step(&mut self, wanted: impl Fn(&Self) -> Option<u64>) {
        let mut next = wanted(self);
        let mut n_hops = 0;
        while let Some(blocker) = next.and_then(|s| self.blocker(s)) {
            next = self.stream_of(blocker.0, blocker.1);
            n_hops += 1;
            if n_hops > self.streams.len() {
                next = None;
            }
        }
        if self.config.seed != 0 && self.random().is_multiple_of(2) {
            let can_run = |(handle, s): (&u64, &Stream)| {
                (!s.queue.is_empty() && self.blocker(*handle).is_none()).then_some(*handle)
            };
            let ready: Vec<u64> = self.streams.iter().filter_map(can_run).collect();
            let pick = self.random() as usize % ready.len().max(1);
            next = ready.get(pick).copied().or(next);
        }
        match next {
            Some(stream) => self.run_head(stream),
            None => self.break_down(Status::LAUNCH_TIMEOUT, "waited for work that nobody queued"),
        }
        self.run_frees();
    }

    /// As early as allowed: what is freed may be anybody's.
    fn run_frees(&mut self) {
        let is_free = |(handle, s): (&u64, &Stream)| {
            matches!(s.queue.front(), Some(Op::Free(_))).then_some(*handle)
        };
        while let Some(stream) = self.streams.iter().find_map(is_free) {
            self.run_head(stream);
        }
    }

    fn run_all(&mut self) {
        let has_work = |(handle, s): (&u64, &Stream)| (!s.queue.is_empty()).then_some(*handle);
        while let Some(stream) = self.streams.iter().find_map(has_work) {
            self.step(|_| Some(stream));
        }
    }

    fn run_head(&mut self, stream: u64) {
        let op = self.streams.get_mut(&stream).map(|s| s.queue.pop_front());
        let Some(Some(op)) = op else { return };
        self.clock += 1;
        if let Err((status, text)) = self.run(op) {
            self.break_down(status, &text);
        }
    }

    fn run(&mut self, op: Op) -> Result<(), (Status, String)> {
        let illegal = |text: String| (Status::ILLEGAL_ADDRESS, text);
        match op {
            Op::Record(event, number) => {
                let clock = self.clock;
                if let Some(e) = self.events.get_mut(&event) {
                    (e.done, e.done_at) = (number, clock);
                }
            }
            Op::Wait(..) => {}
            Op::Allocate(address) => {
                if let Some(a) = self.allocations.get_mut(&address) {
                    a.state = State::Ready;
                }
            }
            Op::Free(address) => {
                if let Some(a) = self.allocations.get_mut(&address) {
                    a.state = State::Freed;
                    a.memory = Memory::new(0);
                    self.used_bytes -= a.len as u64;
                }
            }
            Op::Copy { to, from, len } => {
                if self.is_failing("copy") {
                    let text = "a copy dies, as asked".to_owned();
                    return Err((Status::ECC_UNCORRECTABLE, text));
                }
                let wrong = |why| illegal(format!("a copy: {why}"));
                let mut range = |place: &Place| match place {
                    Place::Device(a) => self.device_range(*a, len),
                    Place::Pinned(a) => match self.is_pinned(*a, len) {
                        Ok(true) => Ok(*a as *mut u8),
                        _ => Err("its memory is no longer pinned".into()),
                    },
                    Place::Taken(bytes) => Ok(bytes.as_ptr().cast_mut()),
                };
                let source = range(&from).map_err(wrong)?.cast_const();
                if matches!(to, Place::Taken(_)) {
                    return Err(wrong("to nowhere".into()));
                }
                let target = range(&to).map_err(wrong)?;
                // SAFETY: both are memory of `len` bytes, as `range` checked. They may overlap, which `copy` allows.
                unsafe { std::ptr::copy(source, target, len) };
            }
            Op::Fill { to, pattern, n } => {
                let width = pattern.len();
                let wrong = |why| illegal(format!("a fill: {why}"));
                let target = self.device_range(to, n * width).map_err(wrong)?;
                // SAFETY: checked by the line above, and nobody else looks at it.
                let target = unsafe { std::slice::from_raw_parts_mut(target, n * width) };
                for element in target.chunks_exact_mut(width) {
                    element.copy_from_slice(&pattern);
                }
            }
            Op::Launch {
                kernel,
                grid,
                block,
                values,
            } => self.run_kernel(kernel, grid, block, &values)?,
        }
        Ok(())
    }

    fn run_kernel(
        &mut self,
        kernel: usize,
        grid: [u32; 3],
        block: [u32; 3],
        values: &[Value],
    ) -> Result<(), (Status, String)> {
        let of = table()[kernel];
        if self.is_failing("launch") {
            let text = format!("{} dies, as asked", of.name);
            return Err((Status::LAUNCH_FAILED, text));
        }
        let mut args = Vec::new();
        let mut addresses: Vec<(u64, bool)> = Vec::new();
        for (i, (value, letter)) in values.iter().zip(of.params.chars()).enumerate() {
            args.push(match *value {
                Value::Number(bits) => RawArg::number(letter == 'f', bits),
                Value::Address(address) => {
                    let wrong = |why| {
                        let text = format!("{}: argument {i}: {why}", of.name);
                        (Status::ILLEGAL_ADDRESS, text)
                    };
                    let is_written = letter == 'w';
                    let same = addresses
                        .iter()
                        .any(|(a, w)| *a == address && (*w || is_written));
                    if same {
                        return Err(wrong(
                            "the same memory as another, one of them written".into(),
                        ));
                    }
                    addresses.push((address, is_written));
                    let (base, len, at) = self.find(address).map_err(wrong)?;
                    RawArg::buffer(is_written, base, len, at)
                }
            });
        }
        let schedule = match self.config.seed {
            0 => Schedule::Forward,
            _ => Schedule::Shuffled(self.random()),
        };
        // SAFETY: the buffers are allocations of this card, which is borrowed until the call returns.
        let done = unsafe { launch_raw(kernel, grid, block, &args, schedule) };
        done.map_err(|text| {
            let status = match () {
                () if text.contains("out-of-bounds") => Status::ILLEGAL_ADDRESS,
                () if text.contains("misaligned") => Status::MISALIGNED_ADDRESS,
                () => Status::LAUNCH_FAILED,
            };
            (status, text)
        })
    }

    // Modules, launches, graphs

    pub(crate) fn load(&mut self, image: &[u8]) -> Fallible<u64> {
        if self.is_failing("load") {
            return Err(Status::NO_BINARY_FOR_GPU);
        }
        let text = std::str::from_utf8(image).unwrap_or("");
        let Some((source, digest)) = text
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.trim_end().split_once('\n'))
        else {
            return self.misuse(Status::INVALID_IMAGE, "an image that is not of this card");
        };
        let Some(of) = table().iter().find(|k| k.source == source) else {
            let text = format!("an image of {source}, which was not compiled");
            return self.misuse(Status::INVALID_IMAGE, &text);
        };
        if format!("{:016x}", of.digest) != digest {
            let text = format!("an image of another text of {source}");
            return self.misuse(Status::INVALID_IMAGE, &text);
        }
        let handle = self.handle();
        self.modules.insert(handle, of.source);
        Ok(handle)
    }

    pub(crate) fn unload(&mut self, module: u64) -> Fallible {
        if !self.modules.contains_key(&module) {
            return self.misuse(Status::INVALID_HANDLE, "a module that is none");
        }
        let source = self.modules.remove(&module);
        let queued = self.streams.values().flat_map(|s| &s.queue);
        let is_queued = queued.into_iter().any(
            |op| matches!(op, Op::Launch { kernel, .. } if Some(table()[*kernel].source) == source),
        );
        self.functions.retain(|_, (of, _)| *of != module);
        if is_queued {
            return self.misuse(
                Status::INVALID_HANDLE,
                "a module is unloaded while its kernel is queued",
            );
        }
        Ok(())
    }

    pub(crate) fn function(&mut self, module: u64, name: &str) -> Fallible<u64> {
        let Some(source) = self.modules.get(&module).copied() else {
            return self.misuse(Status::INVALID_HANDLE, "a module that is none");
        };
        let is_it = |k: &kernel_emu::Kernel| k.source == source && k.name == name;
        let Some(kernel) = table().iter().position(is_it) else {
            return Err(Status::NOT_FOUND);
        };
        let handle = self.handle();
        self.functions.insert(handle, (module, kernel));
        Ok(handle)
    }

    /// Number of the kernel in the table.
    pub(crate) fn kernel(&mut self, function: u64) -> Fallible<usize> {
        match self.functions.get(&function) {
            Some((_, kernel)) => Ok(*kernel),
            None => self.misuse(Status::INVALID_HANDLE, "a function that is none"),
        }
    }

    pub(crate) fn launch(
        &mut self,
        stream: u64,
        kernel: usize,
        [grid, block]: [[u32; 3]; 2],
        values: Vec<Value>,
    ) -> Fallible {
        let of = table()[kernel];
        if self.is_failing("enqueue") {
            return Err(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        let is_possible = |[x, y, z]: [u32; 3], most: [u32; 3]| {
            (1..=most[0]).contains(&x) && (1..=most[1]).contains(&y) && (1..=most[2]).contains(&z)
        };
        let n = block.iter().map(|n| u64::from(*n)).product::<u64>();
        if !is_possible(grid, [0x7fff_ffff, 65535, 65535])
            || !is_possible(block, [1024, 1024, 64])
            || n > 1024
        {
            let text = format!("{}: a grid of {grid:?} of blocks of {block:?}", of.name);
            return self.misuse(Status::INVALID_VALUE, &text);
        }
        if of.threads.is_some_and(|needed| u64::from(needed) != n) {
            let text = format!("{}: a block of {n}, not as THREADS says", of.name);
            return self.misuse(Status::INVALID_VALUE, &text);
        }
        let op = Op::Launch {
            kernel,
            grid,
            block,
            values,
        };
        self.enqueue(stream, op)
    }

    pub(crate) fn begin_capture(&mut self, stream: u64) -> Fallible {
        let s = self.stream(stream)?;
        if s.capture.is_some() {
            return self.misuse(Status::STREAM_CAPTURE_UNSUPPORTED, "captured twice");
        }
        s.capture = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, stream: u64) -> Fallible<u64> {
        let Some(ops) = self.stream(stream)?.capture.take() else {
            return self.misuse(Status::INVALID_VALUE, "the end of no capture");
        };
        if self.is_failing("capture") {
            return Err(Status::STREAM_CAPTURE_INVALIDATED);
        }
        let handle = self.handle();
        self.graphs.insert(handle, ops);
        Ok(handle)
    }

    pub(crate) fn instantiate(&mut self, graph: u64) -> Fallible<u64> {
        let Some(ops) = self.graphs.get(&graph).cloned() else {
            return self.misuse(Status::INVALID_HANDLE, "a graph that is none");
        };
        if self.is_failing("instantiate") {
            return Err(Status::OUT_OF_MEMORY);
        }
        let handle = self.handle();
        self.executables.insert(handle, ops);
        Ok(handle)
    }

    pub(crate) fn launch_graph(&mut self, executable: u64, stream: u64) -> Fallible {
        let Some(ops) = self.executables.get(&executable).cloned() else {
            return self.misuse(Status::INVALID_HANDLE, "a graph that is none");
        };
        ops.into_iter().try_for_each(|op| self.enqueue(stream, op))
    }

    pub(crate) fn destroy_graph(&mut self, graph: u64) -> Fallible {
        match self.graphs.remove(&graph) {
            Some(_) => Ok(()),
            None => self.misuse(Status::INVALID_HANDLE, "a graph that is none"),
        }
    }

    pub(crate) fn destroy_executable(&mut self, executable: u64) -> Fallible {
        match self.executables.remove(&executable) {
            Some(_) => Ok(()),
            None => self.misuse(Status::INVALID_HANDLE, "a graph that is none"),
        }
    }
}

#[cfg(test)]
mod tests;
