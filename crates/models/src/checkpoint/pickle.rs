//! A machine for Python pickles that builds plain values and calls nothing.
//!
//! The operations are those that `torch.save` writes (protocol 2, with a few of later protocols). A global name is kept as
//! a name; the few constructors that a checkpoint needs are understood, any other becomes [`Value::Opaque`].

use std::io::Read;
use std::rc::Rc;

/// The longest text that is believed.
const MOST_TEXT: usize = 1 << 24;
/// Places of the memo are given out one after the other; a larger gap is damage.
const MOST_GAP: usize = 1 << 10;
/// Most operations of one pickle; a checkpoint of a thousand tensors has some ten thousand.
const MOST_OPERATIONS: usize = 50_000_000;

/// A value of a pickle. Containers are shared, as Python's are, and complete before anybody looks at them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number that does not fit 64 bits (the magic number of old files), little-endian two's complement.
    Long(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    Tuple(Rc<[Value]>),
    List(Shared<Vec<Value>>),
    /// Also `collections.OrderedDict` and sets (without values).
    Dict(Shared<Vec<(Value, Value)>>),
    /// `module.name`.
    Global(Rc<str>),
    /// A reference to a storage: what `torch.save` puts in place of the numbers.
    Persistent(Rc<Value>),
    Tensor(Rc<TensorRef>),
    /// An object of a class that is not understood; it was not made.
    Opaque(Rc<str>),
}

/// A container that a pickle fills after it has made it.
pub(crate) type Shared<T> = Rc<std::cell::RefCell<T>>;

/// Which part of which storage a tensor is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    pub(crate) storage: Value,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) stride: Vec<usize>,
}

impl Value {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    fn sizes(&self) -> Option<Vec<usize>> {
        match self {
            Self::Tuple(items) => items.iter().map(Self::size).collect(),
            Self::List(items) => items.borrow().iter().map(Self::size).collect(),
            _ => None,
        }
    }

    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(_) => "a truth value".into(),
            Self::Int(_) | Self::Long(_) | Self::Float(_) => "a number".into(),
            Self::Text(_) | Self::Bytes(_) => "a text".into(),
            Self::Tuple(_) | Self::List(_) => "a list".into(),
            Self::Dict(_) => "a dictionary".into(),
            Self::Global(name) => format!("the name {name}"),
            Self::Persistent(_) => "a storage".into(),
            Self::Tensor(_) => "a tensor".into(),
            Self::Opaque(name) => format!("an object of {name}"),
        }
    }
}

/// Reads one pickle to its end and returns its value.
pub(crate) fn read(input: &mut dyn Read) -> Result<Value, String> {
    Machine { input, stack: Vec::new(), marks: Vec::new(), memo: Vec::new() }.run()
}

struct Machine<'a> {
    input: &'a mut dyn Read,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Value, String> {
        for _ in 0..MOST_OPERATIONS {
            let [operation] = self.bytes()?;
            if operation == b'.' {
                return self.pop();
            }
            self.step(operation)?;
        }
        Err("is longer than any checkpoint".to_owned())
    }

    fn step(&mut self, operation: u8) -> Result<(), String> {
        match operation {
            // Protocol and frame: nothing to do.
            0x80 => drop(self.bytes::<1>()?),
            0x95 => drop(self.bytes::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => {
                let mark = self.marks.pop().ok_or_else(no_mark)?;
                self.stack.truncate(mark);
            }
            b'2' => self.stack.push(self.top()?.clone()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let number = i32::from_le_bytes(self.bytes()?);
                self.stack.push(Value::Int(number.into()));
            }
            0x8a => {
                let [len] = self.bytes()?;
                let value = long(&self.take(len.into())?);
                self.stack.push(value);
            }
            b'G' => {
                let number = f64::from_be_bytes(self.bytes()?);
                self.stack.push(Value::Float(number));
            }
            b'I' | b'L' | b'F' => self.number_as_text(operation)?,
            b'X' => self.sized_text(4)?,
            0x8c => self.sized_text(1)?,
            b'U' | b'C' => self.sized_bytes(1)?,
            b'T' | b'B' => self.sized_bytes(4)?,
            b')' => self.stack.push(Value::Tuple(Rc::new([]))),
            b't' => {
                let items = self.marked()?;
                self.stack.push(Value::Tuple(items.into()));
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(operation - 0x84))?;
                self.stack.push(Value::Tuple(items.into()));
            }
            b']' => self.stack.push(list(Vec::new())),
            b'l' => {
                let items = self.marked()?;
                self.stack.push(list(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.extend(items)?;
            }
            b'}' | 0x8f => self.stack.push(dict()),
            b's' => {
                let pair = self.last(2)?;
                self.update(pair)?;
            }
            b'u' => {
                let items = self.marked()?;
                self.update(items)?;
            }
            // Sets: keys without values.
            0x90 => {
                let items = self.marked()?;
                self.update(items.into_iter().flat_map(|item| [item, Value::None]).collect())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                let [module, name] = <[Value; 2]>::try_from(self.last(2)?).map_err(|_| underflow())?;
                let (Some(module), Some(name)) = (module.text(), name.text()) else {
                    return Err("names a global by something that is no text".to_owned());
                };
                self.stack.push(Value::Global(format!("{module}.{name}").into()));
            }
            b'Q' => {
                let id = self.pop()?;
                self.stack.push(Value::Persistent(Rc::new(id)));
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = construct(&callable, &arguments)?;
                self.stack.push(value);
            }
            b'b' => self.build()?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(operation)?,
            other => return Err(format!("has the operation {other:#04x}, which no checkpoint needs")),
        }
        Ok(())
    }

    /// Storing at, or loading from, a numbered place.
    fn memo(&mut self, operation: u8) -> Result<(), String> {
        let place = match operation {
            b'q' | b'h' => self.bytes::<1>()?[0] as usize,
            b'r' | b'j' => u32::from_le_bytes(self.bytes()?) as usize,
            _ => self.memo.len(),
        };
        if matches!(operation, b'h' | b'j') {
            let value = self.memo.get(place).cloned().flatten().ok_or("recalls what it never stored")?;
            self.stack.push(value);
            return Ok(());
        }
        if place > self.memo.len() + MOST_GAP {
            return Err("stores a value far beyond the others".to_owned());
        }
        if place >= self.memo.len() {
            self.memo.resize(place + 1, None);
        }
        self.memo[place] = Some(self.top()?.clone());
        Ok(())
    }

    /// Gives an object its state. Only containers of ours have one that matters, and it is none of the weights.
    fn build(&mut self) -> Result<(), String> {
        let _state = self.pop()?;
        self.top().map(drop)
    }

    fn int(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.take(len)?;
        let number = bytes.iter().rev().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
        self.stack.push(Value::Int(number));
        Ok(())
    }

    fn number_as_text(&mut self, operation: u8) -> Result<(), String> {
        let line = self.line()?;
        let digits = line.trim_end_matches('L');
        let value = match (operation, digits) {
            (b'I', "01") => Some(Value::Bool(true)),
            (b'I', "00") => Some(Value::Bool(false)),
            (b'F', digits) => digits.parse().ok().map(Value::Float),
            (_, digits) => digits.parse().ok().map(Value::Int),
        };
        self.stack.push(value.ok_or_else(|| format!("has the number {line:?}"))?);
        Ok(())
    }

    fn sized(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let size = self.take(len)?.iter().rev().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
        if size > MOST_TEXT {
            return Err(format!("has a text of {size} bytes"));
        }
        self.take(size)
    }

    fn sized_text(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.sized(len)?;
        let text = String::from_utf8(bytes).map_err(|_| "has a text that is not UTF-8")?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    /// Texts of Python 2 and bytes; old checkpoints name storages so.
    fn sized_bytes(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.sized(len)?;
        self.stack.push(match String::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(error) => Value::Bytes(error.into_bytes().into()),
        });
        Ok(())
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.borrow_mut().extend(items),
            // Elements of an object that was not made.
            Value::Opaque(_) => {}
            other => return Err(format!("appends to {}", other.kind())),
        }
        Ok(())
    }

    fn update(&mut self, items: Vec<Value>) -> Result<(), String> {
        let target = match self.top()? {
            Value::Dict(dict) => dict.clone(),
            Value::Opaque(_) => return Ok(()),
            other => return Err(format!("sets an entry of {}", other.kind())),
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            target.borrow_mut().push((key, value));
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
        Ok(self.stack.split_off(start))
    }

    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or_else(no_mark)?;
        if mark > self.stack.len() {
            return Err(underflow());
        }
        Ok(self.stack.split_off(mark))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| cut_off())?;
        Ok(bytes)
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len];
        self.input.read_exact(&mut bytes).map_err(|_| cut_off())?;
        Ok(bytes)
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

fn list(items: Vec<Value>) -> Value {
    Value::List(Rc::new(items.into()))
}

fn dict() -> Value {
    Value::Dict(Rc::new(Vec::new().into()))
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

/// What a call or a construction makes, for the few that are understood.
fn construct(callable: &Value, arguments: &Value) -> Result<Value, String> {
    let Value::Global(name) = callable else {
        // The result of another construction that was not made.
        return Ok(Value::Opaque(callable.kind().into()));
    };
    let Value::Tuple(arguments) = arguments else {
        return Err(format!("calls {name} without a tuple of arguments"));
    };
    match (&**name, &**arguments) {
        ("collections.OrderedDict", []) => Ok(dict()),
        // OrderedDict([[key, value], …]) of Python 2.
        ("collections.OrderedDict", [Value::List(pairs)]) => {
            let pairs = pairs.borrow();
            let pair = |pair: &Value| match pair {
                Value::List(pair) => <[Value; 2]>::try_from(pair.borrow().clone()).ok(),
                Value::Tuple(pair) => <[Value; 2]>::try_from(pair.to_vec()).ok(),
                _ => None,
            };
            let pairs: Option<Vec<_>> =
                pairs.iter().map(|item| pair(item).map(|[key, value]| (key, value))).collect();
            let pairs = pairs.ok_or("has a dictionary of something else than pairs")?;
            Ok(Value::Dict(Rc::new(pairs.into())))
        }
        ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", arguments) => tensor(arguments),
        ("torch._utils._rebuild_parameter", [tensor, ..]) => Ok(tensor.clone()),
        ("torch.Size", [Value::Tuple(sizes)]) => Ok(Value::Tuple(sizes.clone())),
        _ => Ok(Value::Opaque(name.clone())),
    }
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
fn tensor(arguments: &[Value]) -> Result<Value, String> {
    let bad = || "has a tensor that is not put together as PyTorch does".to_owned();
    let [storage @ Value::Persistent(_), offset, shape, stride, ..] = arguments else { return Err(bad()) };
    let shape = shape.sizes().ok_or_else(bad)?;
    let stride = stride.sizes().ok_or_else(bad)?;
    if shape.len() != stride.len() {
        return Err(bad());
    }
    let offset = offset.size().ok_or_else(bad)?;
    Ok(Value::Tensor(Rc::new(TensorRef { storage: storage.clone(), offset, shape, stride })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Result<Value, String> {
        read(&mut &*bytes)
    }

    #[test]
    fn plain_values_are_read() {
        // {'a': [1, 2.5, True, None], 'b': (-1, 300)}
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G\x40\x04\x00\x00\x00\x00\x00\x00\x88NeX\x01\x00\x00\x00bJ\xff\xff\xff\xffM\x2c\x01\x86u.";
        let Value::Dict(dict) = value(bytes).unwrap() else { panic!("no dictionary") };
        let dict = dict.borrow();
        assert_eq!(dict[0].0.text(), Some("a"));
        let expected = vec![Value::Int(1), Value::Float(2.5), Value::Bool(true), Value::None];
        assert_eq!(dict[0].1, list(expected));
        assert_eq!(dict[1].1, Value::Tuple(Rc::new([Value::Int(-1), Value::Int(300)])));
    }

    #[test]
    fn calls_are_not_made() {
        // os.system('touch /tmp/x'), as `pickle.dumps` writes an object whose __reduce__ says so.
        let bytes = b"\x80\x02cposix\nsystem\nq\x00X\x0c\x00\x00\x00touch /tmp/xq\x01\x85q\x02Rq\x03.";
        assert_eq!(value(bytes).unwrap(), Value::Opaque("posix.system".into()));
    }

    #[test]
    fn damage_is_an_error() {
        for (bytes, problem) in [
            (&b"\x80\x02"[..], "is cut off"),
            (b"\x80\x02.", "takes more values"),
            (b"\x80\x02(t", "is cut off"),
            (b"\x80\x02t.", "never began"),
            (b"\x80\x02h\x07.", "never stored"),
            (b"\x80\x02X\xff\xff\xff\xff.", "has a text of 4294967295 bytes"),
            (b"\x80\x02K\x01K\x02a.", "appends to a number"),
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
        assert_eq!(long(&[1; 9]), Value::Long(Rc::new([1; 9])));
    }
}
