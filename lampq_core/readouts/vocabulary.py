"""Operators and words that tell what an output means. Words are lower case; neighbours are also put together."""

from __future__ import annotations

SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
SIGMOID = frozenset({"Sigmoid", "HardSigmoid"})
# What formats call a sigmoid times and plus constants, such as `4 * sigmoid(x) + 1`.
SCALED_SIGMOID = "ScaledSigmoid"
NORMALIZING = frozenset({"LpNormalization", "L2Normalization", "L2_NORMALIZATION"})
DISCONTINUOUS = frozenset(
    {
        *("NonMaxSuppression", "TFLite_Detection_PostProcess", "EfficientNMS_TRT", "BatchedNMS_TRT"),
        *("TopK", "ArgMax", "ArgMin", "NonZero", "Unique", "RoiAlign", "Hardmax", "OneHot"),
        *("Round", "Floor", "Ceil", "Sign", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
    }
)
# Operators whose results can be logits: sums of products, and means of such. Empty: unknown.
LINEAR = frozenset(
    {
        *("", "Gemm", "MatMul", "Add", "Sub", "Conv", "BatchNormalization", "Einsum", "FusedMatMul"),
        *("GlobalAveragePool", "AveragePool", "ReduceMean", "Mean", "Sum", "Mul"),
        *("QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulNBits", "DequantizeLinear"),
    }
)
# Operators that end a layer of weights, with or without a bias.
PRODUCT = frozenset({"Gemm", "MatMul", "FusedMatMul", "QLinearMatMul", "QGemm", "MatMulNBits"})
# Operators that leave nothing below zero: no logits.
DIRECT = frozenset({"Relu", "Exp", "Softplus", "Abs", "Sqrt", "Pow"})

CACHE = frozenset({"present", "past", "pastkey", "cache", "keyvalues"})
INNER = frozenset({"attentions", "hiddenstates", "crossattentions"})
STATE = frozenset({"hiddenstate", "hiddenstates"})
COMPARISON = frozenset({"perimage", "pertext", "logitsperimage", "logitspertext"})
CLASS = frozenset(
    {
        *("logit", "logits", "class", "classes", "classifier", "classification", "cls", "category"),
        *("prob", "probs", "probability", "probabilities", "label", "labels"),
    }
)
YES_NO = frozenset(
    {
        *("score", "scores", "conf", "confidence", "confidences", "obj", "objectness", "heatmap", "heatmaps"),
        *("hm", "presence", "centerness", "ctrness", "visibility", "classificator", "classificators"),
        *("mask", "masks"),
    }
)
NUMBER = frozenset(
    {
        *("box", "boxes", "bbox", "bboxes", "loc", "locs", "location", "locations", "reg", "regression"),
        *("regressor", "regressors", "landmark", "landmarks", "ldmk", "ldmks", "lmk", "lmks", "kps", "kpt"),
        *("kpts", "keypoint", "keypoints", "joint", "joints", "pose", "poses", "mesh", "iris", "contour"),
        *("contours", "hand", "hands", "depth", "depths", "disparity", "disp", "offset", "offsets", "wh"),
        *(
            "coords",
            "coordinates",
            "delta",
            "deltas",
            "anchors",
            "flow",
            "normals",
            "age",
            "angle",
            "angles",
            "iou",
        ),
    }
)
EMBEDDING = frozenset({"embed", "embeds", "embedding", "embeddings", "sentence", "descriptor", "reid"})
FEATURE = frozenset(
    {
        *("feature", "features", "feat", "feats", "hidden", "lasthidden", "hiddenstate", "pooled", "pooler"),
        *("pooling", "encoded", "memory", "tokens"),
    }
)
LOGITS = frozenset({"logits"})
SPAN = frozenset({"start", "end"})
# Tasks, letters alone, that choose a class for every token.
TOKEN_TASKS = (
    *("tokenclassification", "maskedlm", "fillmask", "causallm", "lmheadmodel", "conditionalgeneration"),
    *("textgeneration", "seq2seqlm", "forctc", "speechrecognition"),
)
# Words of file names. `face`, `hand` and `iris` are none: classifiers are called so as well.
NUMBER_MODEL = frozenset(
    {
        *("landmark", "landmarks", "pose", "palm", "mesh", "facemesh", "keypoint", "keypoints", "movenet"),
        *("blazeface", "blazepose", "posenet", "depth", "midas", "pfld", "pipnet"),
    }
)
EMBEDDER = frozenset(
    {
        *("arcface", "facenet", "mobilefacenet", "sface", "w600", "glint", "osnet", "reid", "minilm"),
        *("sbert", "mpnet", "clip", "ecapa", "speaker", "facerecognition"),
    }
)
RECOGNIZER = frozenset({"ocr", "rec", "crnn", "ctc", "ddddocr", "recognition", "parseq", "svtr"})
SEGMENTER = frozenset({"seg", "segmentation", "segformer", "deeplab", "deeplabv", "fcn", "bisenet", "pspnet"})
# Coordinates of the usual sets of landmarks: MediaPipe's face, attention, pose, hand and iris, 68 and 106 points.
SIZES = frozenset({1404, 1434, 195, 165, 117, 99, 63, 42, 213, 15, 136, 212})
