"""Outputs of models that are out in the world, as their files describe them, and what each means."""

from __future__ import annotations

from dataclasses import dataclass, field

from lampq.core.values.input_spec import InputSpec
from lampq.core.values.output_spec import OutputSpec

IMAGE = InputSpec(name="input", shape=(None, 3, 224, 224))
IMAGE_LAST = InputSpec(name="input_1", shape=(1, 192, 192, 3))
TEXT = (
    InputSpec(name="input_ids", shape=(None, None), dtype="int64"),
    InputSpec(name="attention_mask", shape=(None, None), dtype="int64"),
)
PAST = InputSpec(name="past_key_values.0.key", shape=(None, 12, None, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model's description.

    Attributes:
        name: What it is.
        outputs: Its outputs.
        heads: Role of each; classes and directions with their axis, `*` behind what is activated, `@` before the mask.
        inputs: Its inputs.
        task: Task or architecture of its config.json.
        file: Name of its file.
    """

    name: str
    outputs: tuple[OutputSpec, ...]
    heads: tuple[str, ...]
    inputs: tuple[InputSpec, ...] = (IMAGE,)
    task: str | None = None
    file: str = "model.onnx"
    expected: dict[str, str] = field(init=False)

    def __post_init__(self):
        names = [output.name for output in self.outputs]
        object.__setattr__(self, "expected", dict(zip(names, self.heads, strict=True)))


def out(name, *shape, by="", axis=None, dtype="float32", stands_for=()):
    return OutputSpec(
        name=name, shape=shape or None, producer=by, axis=axis, dtype=dtype, stands_for=stands_for
    )


def case(name, outputs, heads, **rest):
    return Case(name=name, outputs=tuple(outputs), heads=tuple(heads.split()), **rest)


N = None
CLASSIFIERS = [
    case("torchvision", [out("output", N, 1000, by="Gemm")], "classes:-1"),
    case("timm ViT", [out("logits", N, 1000, by="Gemm")], "classes:-1"),
    case("no declared shape", [out("y", by="Gemm")], "classes:-1"),
    case("no declared shape, by numbers", [out("495", by="MatMul")], "classes:-1"),
    case("keras", [out("predictions", N, 1000, by="Softmax", axis=-1)], "classes:-1*"),
    case("MobileNet, axes of one", [out("y", N, 10, 1, 1, by="Conv")], "classes:1"),
    case("SqueezeNet", [out("squeezenet0_flatten0_reshape0", 1, 1000, by="GlobalAveragePool")], "classes:-1"),
    case("log softmax", [out("y", N, 10, by="LogSoftmax", axis=1)], "classes:-1"),
    case("one logit", [out("output", N, 1, by="Gemm")], "probabilities"),
    case("one logit, one axis", [out("output", N, by="Add")], "probabilities"),
    case("one probability", [out("output", N, 1, by="Sigmoid")], "probabilities*"),
    case("a rating from 1 to 5", [out("output", N, 1, by="ScaledSigmoid")], "values"),
    case("many labels", [out("tags", N, 9083, by="Sigmoid")], "probabilities*"),
    case("PP-OCR cls", [out("softmax_0.tmp_0", N, 2, by="Softmax", axis=1)], "classes:-1*", file="cls.onnx"),
    case("a face that classifies", [out("face_cls", N, 7, by="Gemm")], "classes:-1", file="emotion.onnx"),
    case(
        "several tasks",
        [out("gender", N, 2, by="Gemm"), out("race", N, 7, by="Gemm"), out("age", N, 1, by="Gemm")],
        "classes:-1 classes:-1 values",
    ),
    case(
        "sklearn",
        [out("label", N, dtype="int64"), out("y", N, 3, by="Softmax", axis=1)],
        "ignore classes:-1*",
    ),
    case("an unknown operator", [out("y", N, 1000)], "classes:-1"),
    case("MobileNet, channels last", [out("Logits", 1, 1, 1, 1001, by="Conv")], "classes:-1"),
    case("one logit, four axes", [out("y", N, 1, 1, 1, by="Conv")], "probabilities:1"),
    case("a softmax over an axis that is not there", [out("y", N, 10, by="Softmax", axis=3)], "classes:-1*"),
    case("ViT by its task", [out("output", N, 10)], "classes:-1", task="ViTForImageClassification"),
    case("tokens of a classifier", [out("output", N, 197, 384)], "values", task="image-classification"),
]
MEDIAPIPE = [
    case(
        "face landmarks",
        [out("conv2d_21", 1, 1, 1, 1404, by="Conv"), out("conv2d_31", 1, 1, 1, 1, by="Conv")],
        "values probabilities",
        inputs=(IMAGE_LAST,),
        file="face_landmark.tflite",
    ),
    case(
        "face landmarks, flat",
        [out("Identity", 1, 1404, by="Conv"), out("Identity_1", 1, 1, by="Sigmoid")],
        "values probabilities*",
        inputs=(IMAGE_LAST,),
        file="face.tflite",
    ),
    case(
        "palm detection",
        [out("regressors", 1, 2016, 18, by="Concat"), out("classificators", 1, 2016, 1, by="Concat")],
        "values probabilities",
        inputs=(IMAGE_LAST,),
        file="palm_detection_full.tflite",
    ),
    case(
        "hand landmarks",
        [
            out("Identity", 1, 63, by="Add"),
            out("Identity_1", 1, 1, by="Sigmoid"),
            out("Identity_2", 1, 1, by="Sigmoid"),
            out("Identity_3", 1, 63, by="Add"),
        ],
        "values probabilities* probabilities* values",
        inputs=(IMAGE_LAST,),
        file="model.tflite",
    ),
    case(
        "pose landmarks",
        [
            out("Identity", 1, 195, by="Add"),
            out("Identity_1", 1, 1, by="Sigmoid"),
            out("Identity_2", 1, 256, 256, 1, by="Conv"),
            out("Identity_3", 1, 64, 64, 39, by="Conv"),
            out("Identity_4", 1, 117, by="Add"),
        ],
        "values probabilities* values values values",
        inputs=(InputSpec(name="x", shape=(1, 256, 256, 3)),),
        file="pose_landmark_lite.tflite",
    ),
    case(
        "iris",
        [out("output_eyes_contours_and_brows", 1, 213, by="Conv"), out("output_iris", 1, 15, by="Conv")],
        "values values",
        file="iris_landmark.tflite",
    ),
    case(
        "selfie segmentation",
        [out("segment", 1, 256, 256, 1, by="Sigmoid")],
        "probabilities*",
        inputs=(InputSpec(name="x", shape=(1, 256, 256, 3)),),
    ),
]
DETECTORS = [
    case(
        "SSD with its own post-processing",
        [
            out("TFLite_Detection_PostProcess", 1, 10, 4, by="TFLite_Detection_PostProcess"),
            out("TFLite_Detection_PostProcess:1", 1, 10, by="TFLite_Detection_PostProcess"),
            out("concat", 1, 1917, 4, by="Concat", stands_for=("TFLite_Detection_PostProcess",)),
            out("convert_scores", 1, 1917, 91, by="Sigmoid", stands_for=("TFLite_Detection_PostProcess:1",)),
        ],
        "ignore ignore values probabilities*",
    ),
    case(
        "DETR",
        [out("logits", N, 100, 92, by="Add"), out("pred_boxes", N, 100, 4, by="Sigmoid")],
        "classes:-1 values",
        task="DetrForObjectDetection",
    ),
    case(
        "YOLOS",
        [
            out("logits", N, 100, 92, by="Add"),
            out("pred_boxes", N, 100, 4, by="Sigmoid"),
            out("last_hidden_state", N, 300, 192, by="LayerNormalization"),
        ],
        "classes:-1 values ignore",
        task="YolosForObjectDetection",
    ),
    case("YOLOv5", [out("output0", 1, 25200, 85, by="Concat")], "values"),
    case("YOLOv8", [out("output0", 1, 84, 8400, by="Concat")], "values:1"),
    case("YOLO, free size", [out("output0", N, 84, N, by="Concat")], "values:1"),
    case(
        "UltraFace",
        [out("scores", 1, 4420, 2, by="Softmax", axis=2), out("boxes", 1, 4420, 4, by="Concat")],
        "classes:-1* values",
    ),
    case(
        "RetinaNet",
        [out("cls_logits", N, 9000, 91, by="Concat"), out("bbox_regression", N, 9000, 4, by="Concat")],
        "classes:-1 values",
    ),
    case(
        "SCRFD",
        [
            out("score_8", N, 12800, 1, by="Sigmoid"),
            out("bbox_8", N, 12800, 4, by="Mul"),
            out("kps_8", N, 12800, 10, by="Mul"),
        ],
        "probabilities* values values",
    ),
    case(
        "CenterNet",
        [out("hm", 1, 80, 128, 128, by="Conv"), out("wh", 1, 2, 128, 128), out("reg", 1, 2, 128, 128)],
        "probabilities:1 values:1 values:1",
    ),
    case(
        "NonMaxSuppression inside",
        [
            out("boxes", N, 4, by="Gather"),
            out("indices", N, 3, by="NonMaxSuppression", dtype="int64"),
            out("raw", 1, 8400, 4, by="Concat", stands_for=("boxes",)),
        ],
        "ignore ignore values",
    ),
    case(
        "PP-OCR det", [out("sigmoid_0.tmp_0", N, 1, N, N, by="Sigmoid")], "probabilities:1*", file="det.onnx"
    ),
    case("YOLO of a hub", [out("output0", 1, 84, 8400, by="Concat")], "values:1", task="object-detection"),
]
DENSE = [
    case(
        "Segformer",
        [out("logits", N, 150, 128, 128, by="Conv")],
        "classes:1",
        task="SegformerForSemanticSegmentation",
    ),
    case(
        "DeepLab",
        [out("ResizeBilinear_2", 1, 65, 65, 21, by="Conv")],
        "classes:-1",
        inputs=(InputSpec(name="x", shape=(1, 513, 513, 3)),),
        task="image-segmentation",
    ),
    case("segmentation by numbers", [out("1023", N, 21, N, N, by="Resize")], "values:1"),
    case("softmax over channels", [out("out", N, 21, N, N, by="Softmax", axis=1)], "classes:1*"),
    case("depth", [out("predicted_depth", N, 384, 384, by="Relu")], "values", task="DPTForDepthEstimation"),
    case("super resolution", [out("output", N, 3, N, N, by="Add")], "values:1"),
    case("dense ViT-S", [out("output", N, 197, 384, by="LayerNormalization")], "values"),
    case(
        "Mask2Former",
        [
            out("class_queries_logits", N, 100, 151, by="Add"),
            out("masks_queries_logits", N, 100, N, N, by="Einsum"),
        ],
        "classes:-1 probabilities:1",
        task="image-segmentation",
    ),
    case(
        "SAM",
        [out("iou_predictions", N, 4, by="Add"), out("low_res_masks", N, 4, 256, 256, by="MatMul")],
        "values probabilities:1",
    ),
    case(
        "a map of yes and no", [out("out", N, 1, 64, 64, by="Conv")], "probabilities:1", file="road_seg.onnx"
    ),
    case(
        "DeepLab by its file", [out("1023", N, 21, N, N, by="Resize")], "classes:1", file="deeplabv3_r50.onnx"
    ),
]
TEXTS = [
    case(
        "BERT",
        [
            out("last_hidden_state", N, N, 768, by="LayerNormalization"),
            out("pooler_output", N, 768, by="Tanh"),
        ],
        "values@attention_mask values",
        inputs=TEXT,
    ),
    case(
        "sentence encoder",
        [
            out("token_embeddings", N, N, 384, by="LayerNormalization"),
            out("sentence_embedding", N, 384, by="Div"),
        ],
        "values@attention_mask direction:-1",
        inputs=TEXT,
    ),
    case(
        "token classes",
        [out("logits", N, N, 9, by="Add")],
        "classes:-1@attention_mask",
        inputs=TEXT,
        task="BertForTokenClassification",
    ),
    case(
        "token classes by the product they end in",
        [out("output", N, N, 9, by="Gemm")],
        "classes:-1@attention_mask",
        inputs=TEXT,
    ),
    case(
        "masked words",
        [out("logits", N, N, 30522, by="Add")],
        "classes:-1@attention_mask",
        inputs=TEXT,
        task="fill-mask",
    ),
    case(
        "decoder with a cache",
        [
            out("logits", N, N, 50257, by="MatMul"),
            out("present.0.key", N, 12, N, 64),
            out("present.0.value", N, 12, N, 64),
        ],
        "classes:-1 ignore ignore",
        inputs=(*TEXT, PAST),
        task="GPT2LMHeadModel",
    ),
    case(
        "answers",
        [out("start_logits", N, N, by="Split"), out("end_logits", N, N, by="Split")],
        "classes:-1 classes:-1",
        inputs=TEXT,
        task="BertForQuestionAnswering",
    ),
    case(
        "CLIP",
        [
            out("logits_per_image", N, N, by="Mul"),
            out("logits_per_text", N, N, by="Transpose"),
            out("text_embeds", N, 512, by="Div"),
            out("image_embeds", N, 512, by="Div"),
        ],
        "ignore ignore direction:-1 direction:-1",
        inputs=(*TEXT, IMAGE),
        task="CLIPModel",
    ),
    case("CLIP alone", [out("logits_per_image", N, N, by="Mul")], "classes:-1", inputs=(*TEXT, IMAGE)),
    case(
        "PP-OCR rec",
        [out("softmax_11.tmp_0", N, N, 6625, by="Softmax", axis=2)],
        "classes:-1*",
        file="rec.onnx",
    ),
    case("ddddocr", [out("output", N, 1, 8210, by="Add")], "classes:-1", file="common_ocr.onnx"),
    case(
        "speech",
        [out("logits", N, N, 32, by="Add")],
        "classes:-1",
        task="Wav2Vec2ForCTC",
        inputs=(InputSpec(name="input_values", shape=(N, N)),),
    ),
    case(
        "face recognition",
        [out("683", N, 512, by="BatchNormalization")],
        "direction:-1",
        file="w600k_r50.onnx",
    ),
    case("unit length", [out("y", N, 128, by="LpNormalization", axis=1)], "direction:-1"),
    case("nothing but a cache", [out("present", N, 2, N, 64)], "values:1"),
    case("nothing at all", [out("ids", N, dtype="int64"), out("text", N, dtype="string")], "ignore ignore"),
    case(
        "encoder and decoder",
        [out("logits", N, N, 32128, by="MatMul"), out("encoder_last_hidden_state", N, N, 512, by="Mul")],
        "classes:-1 ignore",
        inputs=(*TEXT, InputSpec(name="decoder_input_ids", shape=(N, N), dtype="int64")),
        task="T5ForConditionalGeneration",
    ),
    case(
        "an encoder of its own",
        [out("last_hidden_state", N, N, 512, by="Mul")],
        "values@attention_mask",
        inputs=TEXT,
        task="T5ForConditionalGeneration",
    ),
    case("mean of tokens", [out("output", N, 384, by="Div")], "values", inputs=TEXT),
    case(
        "no more than hidden states", [out("hidden_states.0", N, N, 64)], "values@attention_mask", inputs=TEXT
    ),
    case("one sure class", [out("y", N, 1, by="Softmax", axis=1)], "values"),
    case("unit length of samples", [out("y", N, 128, by="LpNormalization", axis=-2)], "direction:-1"),
    case("softmax over samples", [out("y", N, by="Softmax", axis=0)], "values"),
    case("nothing in it", [out("y", N, 0), out("z", N, 10, by="Gemm")], "ignore classes:-1"),
    case("characters", [out("output", N, N, 97, by="Add")], "classes:-1", file="crnn.onnx"),
    case(
        "tokens in TensorFlow's names",
        [out("StatefulPartitionedCall:0", N, 128, 312, by="Add")],
        "values@serving_default_attention_mask:0",
        inputs=(
            InputSpec(name="serving_default_input_ids:0", shape=(N, 128), dtype="int32"),
            InputSpec(name="serving_default_attention_mask:0", shape=(N, 128), dtype="int32"),
        ),
    ),
]
CASES = [*CLASSIFIERS, *MEDIAPIPE, *DETECTORS, *DENSE, *TEXTS]
