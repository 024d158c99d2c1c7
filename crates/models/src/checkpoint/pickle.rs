//! An interpreter for Python pickles that builds plain values and calls nothing.
//!
//! The operations are those that `torch.save` writes with the pickle protocols 1 to 5. A global name is kept as a name; the
//! few constructors that a checkpoint needs are understood, any other becomes [`Value::Opaque`].

use std::collections::BTreeMap;
use std::io::Read;

use super::value::{Heap, MOST_TEXT, Value};

/// Limit of operations in one pickle; a checkpoint of a thousand tensors has about ten thousand.
const MOST_OPERATIONS: usize = 50_000_000;

/// The result of reading a pickle: its value, and the containers that it refers to.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) root: Value,
    pub(super) heap: Heap,
}

/// Reads one pickle to its end.
pub(super) fn read(input: &mut dyn Read) -> Result<Pickle, String> {
    let machine =
        Machine { input, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), heap: Heap::default() };
    machine.run()
}

struct Machine<'a> {
    input: &'a mut dyn Read,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value>,
    heap: Heap,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle, String> {
        for _ in 0..MOST_OPERATIONS {
            let [operation] = self.bytes()?;
            if operation == b'.' {
                return Ok(Pickle { root: self.pop()?, heap: self.heap });
            }
            self.step(operation)?;
        }
        Err("is longer than any checkpoint".to_owned())
    }

    fn step(&mut self, operation: u8) -> Result<(), String> {
        match operation {
            // Protocol and frame: nothing to do.
            0x80 => self.bytes::<1>().map(drop),
            0x95 => self.bytes::<8>().map(drop),
            b'(' => {
                self.heap.count(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.marked().map(drop),
            b'2' => {
                let top = self.top()?.clone();
                self.push(top)
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' | b'I' | b'L' | b'F' => self.number(operation),
            b'X' => self.sized_text(4),
            0x8c => self.sized_text(1),
            0x8d => self.sized_text(8),
            b'U' | b'C' => self.sized_bytes(1),
            b'T' | b'B' => self.sized_bytes(4),
            0x8e | 0x96 => self.sized_bytes(8),
            b')' => self.tuple(Vec::new()),
            b't' => self.marked().and_then(|items| self.tuple(items)),
            0x85..=0x87 => self.last(usize::from(operation - 0x84)).and_then(|items| self.tuple(items)),
            b']' => self.list(Vec::new()),
            b'l' => self.marked().and_then(|items| self.list(items)),
            b'a' => self.last(1).and_then(|items| self.extend(items)),
            b'e' => self.marked().and_then(|items| self.extend(items)),
            b'}' | 0x8f => self.dict(Vec::new()),
            b's' => self.last(2).and_then(|pair| self.update(pair)),
            b'u' => self.marked().and_then(|items| self.update(items)),
            // Sets: keys without values.
            0x90 => self.marked().and_then(|items| self.update(keys(items))),
            0x91 => self.marked().and_then(|items| self.dict(keys(items))),
            b'c' | 0x93 => self.global(operation),
            b'Q' => self.persistent(),
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.heap.construct(&callable, &arguments)?;
                self.push(value)
            }
            // Keyword arguments: no supported constructor takes any.
            0x92 => {
                self.last(2)?;
                let class = self.pop()?.kind();
                self.push(Value::Opaque(class.into()))
            }
            b'b' => self.build(),
            b'q' | b'r' | 0x94 => self.store(operation),
            b'h' | b'j' => self.recall(operation),
            other => Err(format!("has the operation {other:#04x}, which no checkpoint needs")),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.heap.count(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<(), String> {
        let place = self.heap.container(items);
        self.push(Value::Tuple(place))
    }

    fn list(&mut self, items: Vec<Value>) -> Result<(), String> {
        let place = self.heap.container(items);
        self.push(Value::List(place))
    }

    fn dict(&mut self, items: Vec<Value>) -> Result<(), String> {
        let place = self.heap.container(items);
        self.push(Value::Dict(place))
    }

    fn global(&mut self, operation: u8) -> Result<(), String> {
        let value = if operation == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            self.heap.global(&module, &name)?
        } else {
            let [module, name] = <[Value; 2]>::try_from(self.last(2)?).map_err(|_| underflow())?;
            let (Some(module), Some(name)) = (module.text(), name.text()) else {
                return Err("names a global by something that is no text".to_owned());
            };
            self.heap.global(module, name)?
        };
        self.push(value)
    }

    /// A reference to a storage; old streams also refer to the classes of whole modules, with their source code.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        if let Value::Tuple(place) = id
            && let [kind, class @ Value::Global(_), ..] = self.heap.items(place)
            && kind.text() == Some("module")
        {
            let class = class.clone();
            return self.push(class);
        }
        self.heap.storages.push(id);
        self.push(Value::Storage(self.heap.storages.len() - 1))
    }

    /// Stores the last value in the memo, under the given number or the next free one.
    fn store(&mut self, operation: u8) -> Result<(), String> {
        let number = match operation {
            b'q' => u32::from(self.bytes::<1>()?[0]),
            b'r' => u32::from_le_bytes(self.bytes()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| "stores too many values")?,
        };
        self.heap.count(1)?;
        let top = self.top()?.clone();
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, operation: u8) -> Result<(), String> {
        let number = match operation {
            b'h' => u32::from(self.bytes::<1>()?[0]),
            _ => u32::from_le_bytes(self.bytes()?),
        };
        let value = self.memo.get(&number).cloned().ok_or("recalls what it never stored")?;
        self.push(value)
    }

    /// Sets an object's state. It is dropped: no supported container keeps weights in its state.
    fn build(&mut self) -> Result<(), String> {
        let _state = self.pop()?;
        self.top().map(drop)
    }

    fn number(&mut self, operation: u8) -> Result<(), String> {
        let value = match operation {
            b'K' => Value::Int(self.bytes::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.bytes()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.bytes()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.bytes()?)),
            0x8a => {
                let [len] = self.bytes()?;
                long(&self.take(len.into())?)
            }
            0x8b => long(&self.sized(4)?),
            _ => self.number_as_text(operation)?,
        };
        self.push(value)
    }

    fn number_as_text(&mut self, operation: u8) -> Result<Value, String> {
        let line = self.line()?;
        let digits = line.trim_end_matches('L');
        let value = match (operation, digits) {
            (b'I', "01") => Some(Value::Bool(true)),
            (b'I', "00") => Some(Value::Bool(false)),
            (b'F', digits) => digits.parse().ok().map(Value::Float),
            (_, digits) => digits.parse().ok().map(|number: i128| long(&shortest(number))),
        };
        value.ok_or_else(|| format!("has the number {line:?}"))
    }

    /// Length-prefixed bytes; the length takes `len` bytes.
    fn sized(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let size = self.take(len)?.iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let size = usize::try_from(size).ok().filter(|&size| size <= MOST_TEXT);
        let size = size.ok_or_else(|| format!("has a text of more than {MOST_TEXT} bytes"))?;
        self.heap.count_text(size)?;
        self.take(size)
    }

    fn sized_text(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.sized(len)?;
        let text = String::from_utf8(bytes).map_err(|_| "has a text that is not UTF-8")?;
        self.push(Value::Text(text.into()))
    }

    /// Python 2 strings and bytes; old checkpoints name storages with them.
    fn sized_bytes(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.sized(len)?;
        self.push(match String::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(error) => Value::Bytes(error.into_bytes().into()),
        })
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => {
                let list = *list;
                self.heap.items_mut(list).extend(items);
            }
            // Elements of an opaque object.
            Value::Opaque(_) => {}
            other => return Err(format!("appends to {}", other.kind())),
        }
        Ok(())
    }

    fn update(&mut self, items: Vec<Value>) -> Result<(), String> {
        if items.len() % 2 == 1 {
            return Err("has a dictionary with a key and no value".to_owned());
        }
        match self.top()? {
            Value::Dict(dict) => {
                let dict = *dict;
                self.heap.items_mut(dict).extend(items);
            }
            Value::Opaque(_) => {}
            other => return Err(format!("sets an entry of {}", other.kind())),
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn top(&self) -> Result<&Value, String> {
        self.stack.last().ok_or_else(underflow)
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let start = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
        if self.marks.last().is_some_and(|&mark| mark > start) {
            return Err(underflow());
        }
        Ok(self.stack.drain(start..).collect())
    }

    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or_else(no_mark)?;
        if mark > self.stack.len() {
            return Err(underflow());
        }
        // Not `split_off`, which gives the whole buffer away if it takes everything.
        Ok(self.stack.drain(mark..).collect())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| cut_off())?;
        Ok(bytes)
    }

    /// Reads exactly `len` bytes. Memory grows with what is read, so that a wrong length allocates nothing.
    fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let found = (&mut *self.input).take(len as u64).read_to_end(&mut bytes);
        if found.is_ok_and(|found| found == len) { Ok(bytes) } else { Err(cut_off()) }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            match self.bytes()? {
                [b'\n'] => break,
                [byte] if line.len() < 4096 => line.push(byte),
                _ => return Err("has a line without an end".to_owned()),
            }
        }
        String::from_utf8(line).map_err(|_| "has a line that is no text".to_owned())
    }
}

fn underflow() -> String {
    "takes more values than it has made".to_owned()
}

fn no_mark() -> String {
    "ends a group that it never began".to_owned()
}

fn cut_off() -> String {
    "is cut off".to_owned()
}

/// The keys of a set as the entries of a dictionary.
fn keys(items: Vec<Value>) -> Vec<Value> {
    items.into_iter().flat_map(|item| [item, Value::None]).collect()
}

/// A whole number of any size.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.into());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut extended = [if negative { 0xff } else { 0 }; 8];
    extended[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(extended))
}

/// The fewest little-endian bytes that hold the number in two's complement.
fn shortest(number: i128) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let sign = if number < 0 { 0xff } else { 0 };
    while let [.., before, last] = bytes[..]
        && last == sign
        && before & 0x80 == sign & 0x80
    {
        bytes.pop();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::value::MOST_VALUES;
    use super::*;

    fn value(bytes: &[u8]) -> Result<Pickle, String> {
        read(&mut &*bytes)
    }

    #[test]
    fn plain_values_are_read() {
        // {'a': [1, 2.5, True, None], 'b': (-1, 300)}
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G\x40\x04\x00\x00\x00\x00\x00\x00\x88NeX\x01\x00\x00\x00bJ\xff\xff\xff\xffM\x2c\x01\x86u.";
        let Pickle { root: Value::Dict(dict), heap } = value(bytes).unwrap() else { panic!("no dictionary") };
        let entries: Vec<_> = heap.entries(dict).collect();
        let [(a, Value::List(list)), (b, Value::Tuple(tuple))] = entries[..] else { panic!("{entries:?}") };
        assert_eq!((a.text(), b.text()), (Some("a"), Some("b")));
        let expected = [Value::Int(1), Value::Float(2.5), Value::Bool(true), Value::None];
        assert_eq!(*heap.items(*list), expected);
        assert_eq!(*heap.items(*tuple), [Value::Int(-1), Value::Int(300)]);
    }

    #[test]
    fn calls_are_not_made() {
        // os.system('touch /tmp/x'), as `pickle.dumps` writes an object with such a `__reduce__`.
        let bytes = b"\x80\x02cposix\nsystem\nq\x00X\x0c\x00\x00\x00touch /tmp/xq\x01\x85q\x02Rq\x03.";
        assert_eq!(value(bytes).unwrap().root, Value::Opaque("posix.system".into()));
    }

    #[test]
    fn damage_is_an_error() {
        for (bytes, problem) in [
            (&b"\x80\x02"[..], "is cut off"),
            (b"\x80\x02.", "takes more values"),
            (b"\x80\x02(t", "is cut off"),
            (b"\x80\x02t.", "never began"),
            (b"\x80\x02h\x07.", "never stored"),
            (b"\x80\x02X\xff\xff\xff\xff.", "has a text of more than"),
            (b"\x80\x02X\xff\xff\xff\x00.", "is cut off"),
            (b"\x80\x02K\x01K\x02a.", "appends to a number"),
            (b"\x80\x02}(K\x01u.", "a key and no value"),
            (b"\x80\x02i.", "has the operation 0x69"),
            (b"\x80\x02(K\x01(0.", "takes more values"),
        ] {
            let error = value(bytes).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn long_numbers_keep_their_sign() {
        assert_eq!(long(&[0xfe]), Value::Int(-2));
        assert_eq!(long(&[0x39, 0x30]), Value::Int(12345));
        assert_eq!(long(&[]), Value::Int(0));
        assert_eq!(long(&[1; 9]), Value::Long([1; 9].into()));
        for number in [0, 1, -1, 127, 128, -128, -129, 255, 256, i64::MAX.into(), i64::MIN.into()] {
            assert_eq!(long(&shortest(number)), Value::Int(number.try_into().unwrap()), "{number}");
        }
        assert_eq!(shortest(1 << 64).len(), 9);
    }

    #[test]
    fn a_million_nested_tuples_are_built_and_dropped() {
        let bytes = [&b"\x80\x02N"[..], &[0x85; 1_000_000], b"."].concat();
        let pickle = value(&bytes).unwrap();
        assert!(matches!(pickle.root, Value::Tuple(_)));
        drop(pickle);
    }

    #[test]
    fn a_list_that_holds_itself_is_built_once() {
        // x = []; x.extend([x] * 1000)
        let bytes = [&b"\x80\x02]q\x00("[..], &b"h\x00".repeat(1000), b"e."].concat();
        let Pickle { root: Value::List(list), heap } = value(&bytes).unwrap() else { panic!("no list") };
        assert_eq!(*heap.items(list), vec![Value::List(list); 1000]);
    }

    #[test]
    fn what_is_built_is_bounded() {
        // A memo index far beyond the others allocates nothing for those between.
        let places: Vec<u8> =
            (0..1000_u32).flat_map(|n| [&b"r"[..], &(n * 4_000_000).to_le_bytes()].concat()).collect();
        assert!(value(&[&b"\x80\x02N"[..], &places, b"."].concat()).is_ok());
        // OrderedDict(pairs) again and again, from one list of 1000 pairs.
        let mut bytes = b"\x80\x02]q\x00(".to_vec();
        bytes.extend(b"NN\x86".repeat(1000));
        bytes.extend(b"eccollections\nOrderedDict\nq\x01");
        bytes.extend(b"h\x01h\x00\x85R".repeat(MOST_VALUES / 1000));
        bytes.push(b'.');
        let error = value(&bytes).unwrap_err();
        assert_eq!(error, format!("builds more than {MOST_VALUES} values, which no checkpoint needs"));
        // The same value again and again, on the stack and in the memo.
        for operations in [&b"2"[..], b"q\x00", b"("] {
            let error = value(&[&b"\x80\x02N"[..], &operations.repeat(MOST_VALUES), b"."].concat());
            assert!(error.unwrap_err().starts_with("builds more than"));
        }
        // A result that is called again and again keeps its name.
        let bytes = [&b"\x80\x02cos\nsystem\n"[..], &b")R".repeat(1000), b"."].concat();
        assert_eq!(value(&bytes).unwrap().root, Value::Opaque("os.system".into()));
        // A long text joined to itself.
        let text = [&b"X\x00\x00\x10\x00"[..], &[b'a'; 1 << 20], b"q\x00h\x00\x93."].concat();
        let error = value(&[b"\x80\x02", &text[..]].concat()).unwrap_err();
        assert!(error.starts_with("names a global by"), "{error}");
        let texts = [&b"X\x00\x00\x10\x00"[..], &[b'a'; 1 << 20], b"0"].concat().repeat(65);
        let error = value(&[b"\x80\x02", &texts[..]].concat()).unwrap_err();
        assert!(error.starts_with("has texts of more than"), "{error}");
    }

    #[test]
    fn tensors_that_are_not_plain_are_refused() {
        let tensor = |sizes: &[u8], rest: &[u8]| {
            let start = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NQK\x00";
            value(&[start, sizes, sizes, rest, b"tR."].concat()).map(drop).unwrap_err()
        };
        let long = [&b"("[..], &b"K\x01".repeat(65), b"t"].concat();
        assert!(tensor(&long, b"").contains("not put together"));
        let negated = tensor(b"K\x01\x85", b"\x89N}X\x03\x00\x00\x00neg\x88s");
        assert!(negated.contains("conjugated or negated"), "{negated}");
    }
}
