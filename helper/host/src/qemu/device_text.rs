//! A device as its arguments, in JSON.

use serde_json::{Map, Value};

/// What it takes to plug in a device.
#[derive(Debug, PartialEq)]
pub(crate) struct DeviceText {
    pub(crate) netdev: Option<Map<String, Value>>,
    pub(crate) device: Map<String, Value>,
}

/// Reads `{"driver": …, "id": …}`, or the same as `device` beside `netdev`.
pub(crate) fn read(text: &str) -> Result<DeviceText, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Object(mut map) = value else {
        return Err("it must be an object".to_owned());
    };
    let object = |value: Option<Value>, name: &str| match value {
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(format!("`{name}` must be an object")),
        None => Ok(None),
    };
    // Without `device`, the whole is the device, and its `netdev` a name.
    let (netdev, device) = match object(map.remove("device"), "device")? {
        Some(device) => (object(map.remove("netdev"), "netdev")?, device),
        None => (None, map),
    };
    for name in ["driver", "id"] {
        if device
            .get(name)
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(format!("the device's `{name}` is missing; add it"));
        }
    }
    Ok(DeviceText { netdev, device })
}
