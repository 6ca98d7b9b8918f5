import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Section(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SECTION_UNSPECIFIED: _ClassVar[Section]
    SECTION_START: _ClassVar[Section]
    SECTION_STEP: _ClassVar[Section]
    SECTION_CHECKPOINT: _ClassVar[Section]
    SECTION_EVALUATION: _ClassVar[Section]
    SECTION_IDLE: _ClassVar[Section]
SECTION_UNSPECIFIED: Section
SECTION_START: Section
SECTION_STEP: Section
SECTION_CHECKPOINT: Section
SECTION_EVALUATION: Section
SECTION_IDLE: Section

class StallTimeouts(_message.Message):
    __slots__ = ("start", "step", "checkpoint", "evaluation")
    START_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    start: _duration_pb2.Duration
    step: _duration_pb2.Duration
    checkpoint: _duration_pb2.Duration
    evaluation: _duration_pb2.Duration
    def __init__(self, start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., step: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., checkpoint: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., evaluation: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
